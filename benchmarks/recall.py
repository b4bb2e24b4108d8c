"""Recall for users with 20 to 20,000 messages among 100,000: what is found, and what it takes; beside other ways.

    .venv/bin/python -m benchmarks.recall [--rows 100000] [--questions 40] [--no-hnsw] [--no-peers] [--json FILE]

All ways in one run on the same data and server, question by question in turn: Verse's whole recall (one statement
and its arithmetic), its words alone, an exact scan of the user's vectors, a plain query as the planner takes it, with
an HNSW index and one on the user to choose from, the same made to take HNSW, three libraries (benchmarks/peers), and
numpy with the user's vectors in memory, the limit.

"found" is the share of the user's five nearest messages, by cosine, among the five returned; of recall, which orders
by more than that, among the five of highest cosine that it returns. "short" counts answers of fewer than five.
Processor times are the server's process and, in "cpu", the client's too; memory is the server process's own.
"""

import argparse
import contextlib
import os
import tempfile
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
import psycopg
from django.db import connection
from numpy.typing import NDArray
from pgvector.psycopg import register_vector

from benchmarks import peers, results
from benchmarks.load import scratch_database
from benchmarks.people import SIZES, People, World, fill, sign_up, write
from benchmarks.ways import NEAREST, WARM, Question, Way, as_row, ask_all, local
from retrieval.recall.candidates import Scope, recall
from retrieval.recall.ranking import Ranked

# "+ 0" keeps the planner from an HNSW index: what is exact must be so.
ARM = """(SELECT id * 2 + {number} AS id, embedding <=> %(q)b::vector AS distance FROM {table}
    WHERE user_id = %(user)s AND embedding IS NOT NULL ORDER BY (embedding <=> %(q)b::vector){exact} LIMIT 5)"""
BOTH = """SELECT id FROM ({0} UNION ALL {1}) x ORDER BY distance LIMIT 5"""
INDEXES = {
    "idx_standalone_messages_embedding": "standalone_chat_messages",
    "idx_chat_messages_embedding_user": "chat_messages",
}
SIZE = "SELECT coalesce(sum({function}(c.oid)), 0) / 1e6 FROM pg_class c WHERE relname = ANY (%s)"


def main() -> None:
    """Print the table and the targets."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40, help="for each size of user")
    parser.add_argument(
        "--no-hnsw",
        dest="hnsw",
        action="store_false",
        help="without the HNSW index: minutes to build",
    )
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="without the three libraries"
    )
    parser.add_argument(
        "--load-s", type=float, default=360, help="most seconds that a library may load"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    found = run(
        options.rows,
        options.questions,
        hnsw=options.hnsw,
        others=options.peers,
        load_s=options.load_s,
    )
    print_table(found)
    results.finish(found, options.json)


def run(
    rows: int, questions: int, *, hnsw: bool, others: bool, load_s: float = 360
) -> dict[str, Any]:
    """Figures by size and way, what the peers are, sizes in megabytes, ratios."""
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url:
        world = World()
        people = write(Path(folder), rows, world)
        megabytes = prepare(url, people, hnsw=hnsw)
        asked = {
            size: ask_of(people, user, world, questions) for user, size in enumerate(SIZES, start=1)
        }
        with contextlib.ExitStack() as stack:
            made = {}
            if others:
                made = stack.enter_context(
                    peers.peers(url, people, keep(asked, Path(folder)), load_s=load_s)
                )
            figures = measure(url, people, asked, made, hnsw=hnsw)
    facts = {name: peer.facts for name, peer in made.items()}
    return {
        "rows": rows, "questions": questions, "sizes_mb": megabytes, "peers": facts, "figures": figures,
        "ratios": results.ladder_ratios(figures),
    }  # fmt: skip


def prepare(url: str, people: People, *, hnsw: bool) -> dict[str, float]:
    """Everything in the database; megabytes of what each way reads beside the messages."""
    with psycopg.connect(url) as database:
        for name in INDEXES:
            database.execute(f"DROP INDEX IF EXISTS {name}")
        sign_up(database, people)
        fill(database, people, range(len(people.users)))
        if hnsw:
            build_hnsw(database)
        return sizes(database)


def build_hnsw(database: psycopg.Connection[Any]) -> None:
    """The indexes as the migrations make them, in memory."""
    database.execute("SET maintenance_work_mem = '1GB'")
    for name, table in INDEXES.items():
        database.execute(f"CREATE INDEX {name} ON {table} USING hnsw (embedding vector_cosine_ops)")


def sizes(database: psycopg.Connection[Any]) -> dict[str, float]:
    """Megabytes of the messages, of recall's table with its indexes, and of the HNSW indexes."""
    wanted = {
        "messages": ("pg_table_size", list(INDEXES.values())),
        "recall": ("pg_total_relation_size", ["message_memories"]),
        "hnsw": ("pg_relation_size", list(INDEXES)),
    }
    found = {}
    for name, (function, relations) in wanted.items():
        row = database.execute(SIZE.format(function=function), [relations]).fetchone() or (0,)
        found[name] = round(float(row[0]), 1)
    return found


def ask_of(people: People, user: int, world: World, questions: int) -> list[Question]:
    """Questions near the user's messages, and those to warm up with."""
    references, vectors = people.of(user)
    count = questions + WARM
    asked = world.near(vectors[world.luck.integers(len(vectors), size=count)])
    texts = world.texts(count, least=8, most=8)
    return [
        Question(
            (user - 1) * count + n,
            user,
            text,
            vector,
            frozenset(nearest_of(references, vectors, vector)),
        )
        for n, (text, vector) in enumerate(zip(texts, asked, strict=True))
    ]


def nearest_of(
    references: NDArray[np.int64], vectors: NDArray[np.float32], asked: NDArray[np.float32]
) -> list[int]:
    """By cosine, all in memory; vectors have length 1."""
    return [int(one) for one in references[np.argsort(-(vectors @ asked))[:NEAREST]]]


def keep(asked: dict[int, list[Question]], folder: Path) -> Path:
    """A file of all questions, for other processes."""
    every = [one for questions in asked.values() for one in questions]
    np.savez(
        folder / "questions.npz",
        users=[one.user for one in every],
        vectors=[one.vector for one in every],
    )
    return folder / "questions.npz"


def measure(
    url: str,
    people: People,
    asked: dict[int, list[Question]],
    made: dict[str, peers.Peer],
    *,
    hnsw: bool,
) -> dict[str, dict[str, dict[str, float]]]:
    """Figures by size, then way."""
    figures = {}
    with contextlib.ExitStack() as stack:
        exact, free, forced = (
            stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(3)
        )
        forced.execute(
            "SET enable_sort = off"
        )  # what is left is the index that gives its own order
        for user, size in enumerate(SIZES, start=1):
            ways = own_ways(people.of(user)) | {"exact scan": scan(exact, "+ 0")}
            if hnsw:
                ways["planner's choice"] = scan(free, "")
                ways["HNSW and a user filter"] = scan(forced, "")
            figures[str(size)] = ask_all(ways | peers.ways(made), asked[size])
    return figures


def own_ways(held: tuple[NDArray[np.int64], NDArray[np.float32]]) -> dict[str, Way]:
    """Verse's own, and the limit."""
    return {
        "recall": Way(local(lambda q: nearest_first(whole(q, q.vector))), backend),
        "recall by words": Way(local(lambda q: [one.ref for one in whole(q, None)]), backend),
        "numpy": Way(local(lambda q: nearest_of(*held, q.vector))),
    }


def whole(question: Question, vector: NDArray[np.float32] | None) -> list[Ranked]:
    """Verse's recall."""
    return recall(question.text, Scope(question.user), embedding=vector, model="model")


def nearest_first(ranked: list[Ranked]) -> list[int]:
    """By cosine alone, to compare with an exact search."""
    found = sorted(
        ranked, key=lambda one: -1 if one.similarity is None else one.similarity, reverse=True
    )
    return [one.ref for one in found]


def backend() -> list[int]:
    """The server's process behind Django's connection."""
    connection.ensure_connection()
    return [connection.connection.info.backend_pid]


def scan(database: psycopg.Connection[Any], exact: str) -> Way:
    """A statement over both tables, planned anew each time."""
    register_vector(database)
    arms = [
        ARM.format(number=number, table=table, exact=exact)
        for number, table in enumerate(INDEXES.values())
    ]
    statement = BOTH.format(*arms)

    def look(question: Question) -> list[int]:
        params = {"user": question.user, "q": question.vector}
        return [row[0] for row in database.execute(statement, params, prepare=False).fetchall()]

    return Way(local(look), lambda: [database.info.backend_pid])


def print_table(found: dict[str, Any]) -> None:
    """As Markdown."""
    print(
        "| messages | way | found | short | p50 ms | p95 ms | server CPU ms | CPU ms, client's too | server MB |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    for size, ways in found["figures"].items():
        for name, figures in ways.items():
            print(as_row({"size": f"{int(size):,}", "way": name, **figures}))
    print(f"\nMegabytes: {found['sizes_mb']}\nLibraries: {found['peers']}")


if __name__ == "__main__":
    connection.close()
    main()
