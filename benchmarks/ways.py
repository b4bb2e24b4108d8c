"""Ways to look for the messages nearest to a question: asked in turn, timed, and their figures."""

import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

NEAREST = 5
WARM = 12  # questions first that are not counted: psycopg prepares at the sixth, the server settles five later
PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6


@dataclass(frozen=True)
class Question:
    """Asked of one user's messages; ``right`` are references of the five nearest, by an exact search in memory."""

    number: int
    user: int
    text: str
    vector: NDArray[np.float32]
    right: frozenset[int]


@dataclass(frozen=True)
class Answer:
    """References, nearest first; what it took, in the process that asked: wall and its own processor time."""

    found: list[int]
    ms: float
    client_cpu_ms: float


@dataclass
class Way:
    """One way to look, what it found and took. ``pids``: the server's processes that work for it."""

    look: Callable[[Question], Answer]
    pids: Callable[[], list[int]] = list
    found: list[float] = field(default_factory=list)
    short: int = 0
    ms: list[float] = field(default_factory=list)
    client_cpu_ms: list[float] = field(default_factory=list)
    server_cpu_ms: list[float] = field(default_factory=list)

    def ask(self, question: Question, pids: list[int]) -> None:
        """Look once, and note it."""
        before = cpu_ms(pids)
        answer = self.look(question)
        self.server_cpu_ms.append(cpu_ms(pids) - before)
        self.ms.append(answer.ms)
        self.client_cpu_ms.append(answer.client_cpu_ms)
        self.found.append(len(question.right & set(answer.found[:NEAREST])) / len(question.right))
        self.short += len(answer.found) < len(question.right)

    def forget(self) -> None:
        """Nothing noted."""
        self.found, self.short, self.ms, self.client_cpu_ms, self.server_cpu_ms = [], 0, [], [], []

    def figures(self) -> dict[str, float]:
        """Means, but for the two quantiles of wall time and the server's memory at the end."""
        p50, p95 = np.quantile(self.ms, [0.5, 0.95])
        server, client = np.mean(self.server_cpu_ms), np.mean(self.client_cpu_ms)
        return {
            "found": round(float(np.mean(self.found)), 3),
            "short": self.short,
            "p50_ms": round(float(p50), 2),
            "p95_ms": round(float(p95), 2),
            "server_cpu_ms": round(float(server), 2),
            "cpu_ms": round(float(server + client), 2),
            "server_mb": round(sum(map(private_mb, self.pids())), 1),
        }


def local(look: Callable[[Question], list[int]]) -> Callable[[Question], Answer]:
    """A function of this process, timed."""

    def timed(question: Question) -> Answer:
        cpu, began = (
            time.thread_time(),
            time.perf_counter(),
        )  # numpy's other threads spin for a while
        found = look(question)
        return Answer(
            found, (time.perf_counter() - began) * 1000, (time.thread_time() - cpu) * 1000
        )

    return timed


def ask_all(ways: Mapping[str, Way], questions: list[Question]) -> dict[str, dict[str, float]]:
    """The same questions to all, in turn, each time another way first; figures by way."""
    names, pids = list(ways), dict[str, list[int]]()
    for number, question in enumerate(questions):
        if number <= WARM:  # afterwards nobody connects any more
            pids = {name: ways[name].pids() for name in names}
        for name in names[number % len(names) :] + names[: number % len(names)]:
            ways[name].ask(question, pids[name])
        if number == WARM - 1:
            for way in ways.values():
                way.forget()
    return {name: way.figures() for name, way in ways.items()}


def cpu_ms(pids: list[int]) -> float:
    """Processor time of processes of one thread so far: nanoseconds in the kernel's books."""
    return sum(int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) for pid in pids) / 1e6


def private_mb(pid: int) -> float:
    """Memory that is the process's own: resident less shared."""
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * PAGE_MB


def as_row(cells: Mapping[str, Any]) -> str:
    """A line of a Markdown table."""
    return f"| {' | '.join(str(cell) for cell in cells.values())} |"
