"""Compares recall with other searches for users with 20 to 20,000 messages among 100,000.

    .venv/bin/python -m benchmarks.recall [--rows 100000] [--questions 40] [--no-hnsw] [--no-peers]
                                          [--json FILE]

All ways run on the same data and server, alternating for each question: Verse's whole recall (a
statement and its arithmetic); recall by words alone; an exact scan of the user's vectors; a plain
query with an HNSW index and an index on the user for the planner to choose from; the same query
forced to use HNSW; three libraries (benchmarks/peers); and numpy with the user's vectors in memory,
the limit.

"found" is the share of the user's five nearest messages, by cosine, among the five returned. Recall
orders by more than cosine, so its five of highest cosine are used. "short" counts answers of fewer
than five. Processor times are the server process's and, in "cpu", the client's too; memory is the
server process's own.
"""

import argparse
import contextlib
import itertools
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
from psycopg import sql

from benchmarks import peers, results
from benchmarks.generated_messages import SIZES, DataGenerator, Messages, fill, sign_up, write
from benchmarks.stage import scratch_database
from benchmarks.ways import NEAREST, WARM, Question, Way, as_row, ask_all, local
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import Recalled, recall

# "+ 0" prevents the planner from using an HNSW index, which is not exact.
ARM = """(SELECT id * 2 + {number} AS id, embedding <=> %(q)b::vector AS distance FROM {table}
    WHERE user_id = %(user)s AND embedding IS NOT NULL
    ORDER BY (embedding <=> %(q)b::vector){exact} LIMIT 5)"""
BOTH = """SELECT id FROM ({0} UNION ALL {1}) x ORDER BY distance LIMIT 5"""
INDEXES = {
    "idx_standalone_messages_embedding": "standalone_chat_messages",
    "idx_chat_messages_embedding_user": "chat_messages",
}
SIZE = "SELECT coalesce(sum({function}(c.oid)), 0) / 1e6 FROM pg_class c WHERE relname = ANY (%s)"


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--questions", type=int, default=40, help="for each size of user")
    parser.add_argument(
        "--no-hnsw",
        dest="hnsw",
        action="store_false",
        help="without the HNSW index, which takes minutes to build",
    )
    parser.add_argument(
        "--no-peers", dest="peers", action="store_false", help="without the three libraries"
    )
    parser.add_argument(
        "--load-s", type=float, default=360, help="seconds that a library may load data"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    outcome = run(
        options.rows,
        options.questions,
        hnsw=options.hnsw,
        others=options.peers,
        load_s=options.load_s,
    )
    print_table(outcome)
    results.finish(outcome, options.json)


def run(
    rows: int, questions: int, *, hnsw: bool, others: bool, load_s: float = 360
) -> dict[str, Any]:
    """Figures by size and way, facts about the libraries, sizes in MB, ratios."""
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url:
        generator = DataGenerator()
        messages = write(Path(folder), rows, generator)
        megabytes = prepare(url, messages, hnsw=hnsw)
        questions_by_size = {
            size: ask_of(messages, user, generator, questions)
            for user, size in enumerate(SIZES, start=1)
        }
        with contextlib.ExitStack() as stack:
            libraries: dict[str, peers.Peer] = {}
            if others:
                path = save_questions(questions_by_size, Path(folder))
                libraries = stack.enter_context(peers.peers(url, messages, path, load_s=load_s))
            figures = measure(url, messages, questions_by_size, libraries, hnsw=hnsw)
    facts = {name: peer.facts for name, peer in libraries.items()}
    return {
        "rows": rows,
        "questions": questions,
        "sizes_mb": megabytes,
        "peers": facts,
        "figures": figures,
        "ratios": results.ladder_ratios(figures),
    }


def drop_hnsw(database: psycopg.Connection[Any]) -> None:
    """Drop the HNSW indexes, which recall does not use."""
    for name in INDEXES:
        database.execute(sql.SQL("DROP INDEX IF EXISTS {}").format(sql.Identifier(name)))


def prepare(url: str, messages: Messages, *, hnsw: bool) -> dict[str, float]:
    """Fill the database. Returns the sizes of tables and indexes in MB."""
    with psycopg.connect(url) as database:
        drop_hnsw(database)
        sign_up(database, messages)
        fill(database, messages, range(len(messages.users)))
        if hnsw:
            build_hnsw(database)
        return sizes(database)


def build_hnsw(database: psycopg.Connection[Any]) -> None:
    """Build the HNSW indexes of the migrations, in memory."""
    database.execute("SET maintenance_work_mem = '1GB'")
    for name, table in INDEXES.items():
        database.execute(f"CREATE INDEX {name} ON {table} USING hnsw (embedding vector_cosine_ops)")


def sizes(database: psycopg.Connection[Any]) -> dict[str, float]:
    """Sizes in MB: the messages, message_memories with indexes, the HNSW indexes."""
    relations_of = {
        "messages": ("pg_table_size", list(INDEXES.values())),
        "recall": ("pg_total_relation_size", ["message_memories"]),
        "hnsw": ("pg_relation_size", list(INDEXES)),
    }
    megabytes = {}
    for name, (function, relations) in relations_of.items():
        row = database.execute(SIZE.format(function=function), [relations]).fetchone() or (0,)
        megabytes[name] = round(float(row[0]), 1)
    return megabytes


def ask_of(
    messages: Messages, user: int, generator: DataGenerator, questions: int
) -> list[Question]:
    """Questions similar to the user's messages, with WARM more to warm up."""
    references, vectors = messages.of(user)
    count = questions + WARM
    asked_vectors = generator.near(vectors[generator.rng.integers(len(vectors), size=count)])
    texts = generator.texts(count, min_words=8, max_words=8)
    numbers = range((user - 1) * count, user * count)
    return [
        Question(number, user, text, vector, frozenset(nearest_of(references, vectors, vector)))
        for number, text, vector in zip(numbers, texts, asked_vectors, strict=True)
    ]


def nearest_of(
    references: NDArray[np.int64], vectors: NDArray[np.float32], question: NDArray[np.float32]
) -> list[int]:
    """The nearest by cosine, computed in memory from unit vectors."""
    nearest = references[np.argsort(-(vectors @ question))[:NEAREST]]
    return [int(reference) for reference in nearest]


def save_questions(questions_by_size: dict[int, list[Question]], folder: Path) -> Path:
    """Write all questions to a file, for other processes."""
    every = list(itertools.chain.from_iterable(questions_by_size.values()))
    np.savez(
        folder / "questions.npz",
        users=[question.user for question in every],
        vectors=[question.vector for question in every],
    )
    return folder / "questions.npz"


def measure(
    url: str,
    messages: Messages,
    questions_by_size: dict[int, list[Question]],
    libraries: dict[str, peers.Peer],
    *,
    hnsw: bool,
) -> dict[str, dict[str, dict[str, float]]]:
    """The figures by size, then by way."""
    figures = {}
    with contextlib.ExitStack() as stack:
        exact, free, forced = (
            stack.enter_context(psycopg.connect(url, autocommit=True)) for _ in range(3)
        )
        # Without sorting, only the HNSW index gives the right order.
        forced.execute("SET enable_sort = off")
        for user, size in enumerate(SIZES, start=1):
            ways = own_ways(messages.of(user)) | {"exact scan": scan(exact, "+ 0")}
            if hnsw:
                ways["planner's choice"] = scan(free, "")
                ways["HNSW and a user filter"] = scan(forced, "")
            figures[str(size)] = ask_all(ways | peers.ways(libraries), questions_by_size[size])
    return figures


def own_ways(in_memory: tuple[NDArray[np.int64], NDArray[np.float32]]) -> dict[str, Way]:
    """Verse's own ways, and numpy as the limit."""
    return {
        "recall": Way(local(lambda q: nearest_first(whole(q, q.vector))), backend),
        "recall by words": Way(local(lambda q: refs_of(whole(q, None))), backend),
        "numpy": Way(local(lambda q: nearest_of(*in_memory, q.vector))),
    }


def whole(question: Question, vector: NDArray[np.float32] | None) -> list[Recalled]:
    """Verse's recall."""
    return recall(question.text, Scope(question.user), embedding=vector, model="model")


def nearest_first(ranked: list[Recalled]) -> list[int]:
    """Ordered by cosine alone, to compare with an exact search."""

    def similarity(item: Recalled) -> float:
        return -1 if item.similarity is None else item.similarity

    return refs_of(sorted(ranked, key=similarity, reverse=True))


def refs_of(ranked: list[Recalled]) -> list[int]:
    """The packed message ids."""
    return [item.ref for item in ranked]


def backend() -> list[int]:
    """The server process of Django's connection."""
    connection.ensure_connection()
    return [connection.connection.info.backend_pid]


def scan(database: psycopg.Connection[Any], exact: str) -> Way:
    """A query over both tables that is planned each time."""
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


def print_table(outcome: dict[str, Any]) -> None:
    """Print a Markdown table."""
    times = "p50 ms | p95 ms | server CPU ms | CPU ms, client's too"
    print(f"| messages | way | found | short | {times} | server MB |")
    print("|---|---|---|---|---|---|---|---|---|")
    for size, ways in outcome["figures"].items():
        for name, figures in ways.items():
            print(as_row({"size": f"{int(size):,}", "way": name, **figures}))
    print(f"\nMegabytes: {outcome['sizes_mb']}\nLibraries: {outcome['peers']}")


if __name__ == "__main__":
    connection.close()
    main()
