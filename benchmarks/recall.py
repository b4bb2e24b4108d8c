"""Recall for users with 20 to 20,000 messages among 100,000: what is found, and how long it takes.

    .venv/bin/python -m benchmarks.recall [--rows 100000] [--questions 50] [--hnsw] [--json FILE]

All ways in one run on the same data and server, question by question in turn: Verse's whole recall (one statement
and its arithmetic), its words alone, an exact scan of the user's vectors, the HNSW indexes with a user filter (--hnsw
builds them), and numpy with the user's vectors in memory, the limit. "Found" is the share of the user's
five nearest messages, by cosine, among what is looked at (of the others: among the five returned); "short" counts
answers of fewer than five.
"""

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray

from benchmarks.load import scratch_database
from benchmarks.people import SIZES, World, fill
from retrieval import sql
from retrieval.recall import Scope, recall
from retrieval.sql import VectorDumper

NEAREST = 5
ARM = """(SELECT id * 2 + {number} AS id, embedding <=> %(q)b::vector AS distance FROM {table}
    WHERE user_id = %(user)s AND embedding IS NOT NULL ORDER BY embedding <=> %(q)b::vector LIMIT 5)"""
BOTH = (
    f"SELECT id FROM ({ARM.format(number=0, table='standalone_chat_messages')} UNION ALL "
    f"{ARM.format(number=1, table='chat_messages')}) x ORDER BY distance LIMIT 5"
)
HNSW = """
    SET maintenance_work_mem = '1GB';
    CREATE INDEX plain_standalone ON standalone_chat_messages USING hnsw (embedding vector_cosine_ops);
    CREATE INDEX plain_passages ON chat_messages USING hnsw (embedding vector_cosine_ops);
"""
TICK_MS = 1000 / os.sysconf("SC_CLK_TCK")


@dataclass
class Way:
    """One way to look: the references it found, and what it took."""

    look: Callable[[int, str, NDArray[np.float32]], list[int]]
    found: list[float] = field(default_factory=list)
    short: int = 0
    ms: list[float] = field(default_factory=list)
    cpu_ms: float = 0.0

    def ask(self, user: int, text: str, vector: NDArray[np.float32], right: set[int], pid: int | None) -> None:
        """Look once, and note it."""
        cpu, began = cpu_ms_of(pid), time.perf_counter()
        found = self.look(user, text, vector)
        self.ms.append((time.perf_counter() - began) * 1000)
        self.cpu_ms += cpu_ms_of(pid) - cpu
        self.found.append(len(right & set(found)) / len(right))
        self.short += len(found) < NEAREST

    def row(self) -> dict[str, Any]:
        """The figures."""
        p50, p95 = np.quantile(self.ms, [0.5, 0.95])
        return {
            "found": round(float(np.mean(self.found)), 3),
            "short": self.short,
            "p50_ms": round(float(p50), 2),
            "p95_ms": round(float(p95), 2),
            "backend_cpu_ms": round(self.cpu_ms / len(self.ms), 2),
        }


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=50, help="for each size of user")
    parser.add_argument("--hnsw", action="store_true", help="also the HNSW indexes: some minutes to build")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    with scratch_database() as url:
        for name in ("idx_standalone_messages_embedding", "idx_chat_messages_embedding_user"):
            with psycopg.connect(url, autocommit=True) as database:
                database.execute(f"DROP INDEX IF EXISTS {name}")
        world = World()
        with psycopg.connect(url) as database:
            fill(database, options.rows, world)
        figures = measure(url, world, options)
    print_table(figures)
    if options.json:
        options.json.write_text(json.dumps(figures, indent=1))


def measure(url: str, world: World, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Figures by ``size, way``; the ways take turns at every question."""
    figures: dict[str, dict[str, Any]] = {}
    with psycopg.connect(url, autocommit=True) as database:
        database.adapters.register_dumper(np.ndarray, VectorDumper)
        held = {user: memory_of(database, user) for user in range(1, len(SIZES) + 1)}
        for user, size in enumerate(SIZES, start=1):
            ways = ways_of(database, held[user])
            ask_all(ways, user, held[user], world, options.questions, database)
            figures |= {f"{size}, {name}": way.row() for name, way in ways.items()}
        if options.hnsw:
            database.execute(HNSW)
            for user, size in enumerate(SIZES, start=1):
                way = {"HNSW and a user filter": Way(lambda u, _, v: nearest(database, u, v))}
                ask_all(way, user, held[user], world, options.questions, database)
                figures |= {f"{size}, {name}": one.row() for name, one in way.items()}
    return figures


def ways_of(database: psycopg.Connection[Any], held: tuple[NDArray[np.int64], NDArray[np.float32]]) -> dict[str, Way]:
    """The ways that need no HNSW index."""

    def whole(user: int, text: str, vector: NDArray[np.float32] | None) -> list[int]:
        return [one.reference for one in recall(text, Scope(user), embedding=vector, model="model")]

    ids, vectors = held
    return {
        "recall": Way(whole),
        "recall by words": Way(lambda user, text, _: whole(user, text, None)),
        "exact scan": Way(lambda user, _, vector: nearest(database, user, vector)),
        "numpy": Way(lambda _, __, vector: [int(pk) for pk in ids[np.argsort(-(vectors @ vector))[:NEAREST]]]),
    }


def ask_all(
    ways: dict[str, Way],
    user: int,
    held: tuple[NDArray[np.int64], NDArray[np.float32]],
    world: World,
    questions: int,
    database: psycopg.Connection[Any],
) -> None:
    """The same questions for all; three first that are not counted."""
    ids, vectors = held
    places = world.luck.integers(len(ids), size=questions + 3)
    asked = world.near(vectors[places])
    for number, (vector, text) in enumerate(zip(asked, world.texts(questions + 3), strict=True)):
        right = {int(pk) for pk in ids[np.argsort(-(vectors @ vector))[:NEAREST]]}
        pids = {"exact scan": database.info.backend_pid, "HNSW and a user filter": database.info.backend_pid}
        for name, way in ways.items():
            pid = pids.get(name) or (sql._raw().info.backend_pid if name != "numpy" and number else None)  # noqa: SLF001
            way.ask(user, " ".join(text.split()[:8]), vector, right, pid)
        if number == 2:
            for way in ways.values():
                way.found, way.ms, way.short, way.cpu_ms = [], [], 0, 0.0


def nearest(database: psycopg.Connection[Any], user: int, vector: NDArray[np.float32]) -> list[int]:
    """By whatever plan the server takes, a custom one each time."""
    return [row[0] for row in database.execute(BOTH, {"user": user, "q": vector}, prepare=False).fetchall()]


def memory_of(database: psycopg.Connection[Any], user: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
    """The user's references, and their vectors: shape (n, 1536)."""
    rows = database.execute(
        "SELECT id * 2, embedding::real[] FROM standalone_chat_messages WHERE user_id = %(user)s UNION ALL "
        "SELECT id * 2 + 1, embedding::real[] FROM chat_messages WHERE user_id = %(user)s",
        {"user": user},
        binary=True,
    ).fetchall()
    return np.array([row[0] for row in rows]), np.array([row[1] for row in rows], dtype=np.float32)


def cpu_ms_of(pid: int | None) -> float:
    """User and system time of the server's process so far, to a hundredth of a second."""
    if pid is None:
        return 0.0
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) * TICK_MS


def print_table(figures: dict[str, dict[str, Any]]) -> None:
    """As Markdown."""
    print("| messages of the user, way | found | short | p50 ms | p95 ms | backend CPU ms |")
    print("|---|---|---|---|---|---|")
    for name, row in figures.items():
        print(f"| {name} | {' | '.join(str(value) for value in row.values())} |")


if __name__ == "__main__":
    connection.close()
    main()
