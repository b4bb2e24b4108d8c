"""Measures ways to search for the messages nearest to a question, in alternation."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.processes import cpu_ms, private_mb

NEAREST = 5
# The first questions, which warm up: psycopg prepares a statement at its sixth execution, and
# PostgreSQL may choose a generic plan after five more.
WARM = 12


@dataclass(frozen=True)
class Question:
    """A question about a user's messages.

    ``nearest_refs``: packed ids of the five nearest, by an exact search in memory.
    """

    number: int
    user: int
    text: str
    vector: NDArray[np.float32]
    nearest_refs: frozenset[int]


@dataclass(frozen=True)
class Answer:
    """Packed message ids, nearest first, and the asking process's wall and processor time."""

    references: list[int]
    ms: float
    client_cpu_ms: float


@dataclass
class Way:
    """A way to search, and its measurements. ``pids``: the server processes that it uses."""

    look: Callable[[Question], Answer]
    pids: Callable[[], list[int]] = list
    found_shares: list[float] = field(default_factory=list)
    short: int = 0
    ms: list[float] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)

    def ask(self, question: Question, pids: list[int]) -> None:
        """Search, and record the measurements."""
        before = cpu_ms(pids)
        answer = self.look(question)
        self.server_cpu_ms.append(cpu_ms(pids) - before)
        self.ms.append(answer.ms)
        self.client_cpu_ms.append(answer.client_cpu_ms)
        hits = question.nearest_refs & set(answer.references[:NEAREST])
        self.found_shares.append(len(hits) / len(question.nearest_refs))
        self.short += len(answer.references) < len(question.nearest_refs)

    def reset(self) -> None:
        """Delete all measurements."""
        self.short = 0
        for values in (self.found_shares, self.ms, self.client_cpu_ms, self.server_cpu_ms):
            values.clear()

    def figures(self) -> dict[str, float]:
        """Means, two quantiles of the wall time, and the server's memory at the end."""
        p50, p95 = np.quantile(self.ms, [0.5, 0.95])
        server, client = np.mean(self.server_cpu_ms), np.mean(self.client_cpu_ms)
        return {
            "found": round(float(np.mean(self.found_shares)), 3),
            "short": self.short,
            "p50_ms": round(float(p50), 2),
            "p95_ms": round(float(p95), 2),
            "server_cpu_ms": round(float(server), 2),
            "total_cpu_ms": round(float(server + client), 2),
            "server_mb": round(sum(map(private_mb, self.pids())), 1),
        }


def local(look: Callable[[Question], list[int]]) -> Callable[[Question], Answer]:
    """Measure a function of this process."""

    def timed(question: Question) -> Answer:
        # CPU time of this thread, because numpy's other threads spin for a while. The peers measure
        # their whole process.
        cpu, started = time.thread_time(), time.perf_counter()
        references = look(question)
        took_s, cpu_s = time.perf_counter() - started, time.thread_time() - cpu
        return Answer(references, took_s * 1000, cpu_s * 1000)

    return timed


def ask_all(ways: Mapping[str, Way], questions: list[Question]) -> dict[str, dict[str, float]]:
    """Send each question to all ways, a different way first each time. The figures by way."""
    names, pids = list(ways), dict[str, list[int]]()
    for number, question in enumerate(questions):
        if number <= WARM:  # no new connections after that
            pids = {name: ways[name].pids() for name in names}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            ways[name].ask(question, pids[name])
        if number == WARM - 1:
            for way in ways.values():
                way.reset()
    return {name: way.figures() for name, way in ways.items()}


def as_row(cells: Mapping[str, Any]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells.values())} |"
