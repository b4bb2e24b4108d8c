"""Compares filling before and after building the HNSW index, and HNSW parameters.

    .venv/bin/python -m benchmarks.index_build [--rows 20000] [--filled 4000]

First table: the same rows stored by the backfill's statement with the index in place, and without
it and built afterwards like ``rag_index create hnsw``. Second table: ``rag_index rebuild`` with
several parameters, and the share of the ten nearest rows that an index search finds. The vectors
have 1,536 numbers and lie around 50 centres.
"""

import argparse
import os
import statistics
import time
from collections.abc import Iterator

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
from django.db import connection
from numpy.typing import NDArray

from benchmarks.stage import scratch_database
from retrieval import current_model, runtime, storage
from retrieval.embeddings.embedding_service import configured_name
from retrieval.models import message_tables
from retrieval.reindex import rebuild
from retrieval.reindex.index_state import HnswOptions, IndexState, read_states

MODEL = configured_name() or ""
SHAPES = [
    HnswOptions(8, 32),
    HnswOptions(16, 64),
    HnswOptions(16, 128),
    HnswOptions(32, 64),
    HnswOptions(32, 128),
]
MEMORY = "1GB"  # maintenance_work_mem; the graph fits
SMALL_MEMORY = "64MB"  # PostgreSQL's default
QUESTIONS, NEAREST = 100, 10
CENTRES, DIRECTIONS = 50, 256  # each vector lies near a centre and varies in some directions only
ROWS = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', 'Row ' || n, now() FROM standalone_chats, generate_series(1, %s) n
"""
SEARCH = "SELECT id FROM standalone_chat_messages ORDER BY embedding <=> %s::vector LIMIT %s"


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000, help="rows of the second table")
    parser.add_argument("--filled", type=int, default=4_000, help="rows of the first table")
    options = parser.parse_args()
    with scratch_database():
        vectors = vectors_of(options.rows + QUESTIONS)
        compare_fills(vectors[: options.filled])
        compare_shapes(vectors[:-QUESTIONS], vectors[-QUESTIONS:])


def vectors_of(count: int) -> NDArray[np.float32]:
    """Unit vectors, shape (count, 1536)."""
    rng = np.random.default_rng(1)
    directions = rng.standard_normal((DIRECTIONS, 1536), dtype=np.float32)
    centres = rng.standard_normal((CENTRES, DIRECTIONS), dtype=np.float32)
    spread = rng.standard_normal((count, DIRECTIONS), dtype=np.float32)
    vectors = (centres[rng.integers(CENTRES, size=count)] + 0.7 * spread) @ directions
    vectors += rng.standard_normal((count, 1536), dtype=np.float32)
    return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)


def compare_fills(vectors: NDArray[np.float32]) -> None:
    """Print the first table."""
    print(f"| {len(vectors):,} rows | fill s | rows/s | build s | end to end s |")
    print("|---|---|---|---|---|")
    totals = []
    for name, before in (("with the index in place", True), ("drop, fill, create", False)):
        ids = make_rows(len(vectors))
        run_sql(f"SET maintenance_work_mem = '{MEMORY}'")
        if not before:
            rebuild.drop(target())
        fill_s = fill(ids, vectors)
        build_s = 0.0 if before else timed_create()
        totals.append(fill_s + build_s)
        rate = len(vectors) / fill_s
        print(
            f"| {name} | {fill_s:.1f} | {rate:,.0f} | {build_s:.1f} | {totals[-1]:.1f} |",
            flush=True,
        )
    print(f"\n{totals[0] / totals[1]:.1f} times faster\n")


def compare_shapes(vectors: NDArray[np.float32], questions: NDArray[np.float32]) -> None:
    """Print the second table."""
    rebuild.drop(target())
    ids = make_rows(len(vectors))
    fill(ids, vectors)
    nearest = [np.argsort(-(vectors @ question))[:NEAREST] for question in questions]
    right = [{ids[place] for place in places} for places in nearest]
    columns = "m | ef_construction | memory | build s | MB | recall@10 | search ms"
    print(f"| {len(vectors):,} rows, {columns} |")
    print("|---|---|---|---|---|---|---|")
    for shape, memory in [*((each, MEMORY) for each in SHAPES), (HnswOptions(), SMALL_MEMORY)]:
        run_sql(f"SET maintenance_work_mem = '{memory}'")
        started = time.perf_counter()
        rebuild.rebuild(target(), shape)
        build_s = time.perf_counter() - started
        recall, search_ms = search(questions, right)
        size = target().size_bytes / 1e6
        cells = [f"{build_s:.1f}", f"{size:.0f}", f"{recall:.3f}", f"{search_ms:.1f}"]
        print(
            f"| {shape.m} | {shape.ef_construction} | {memory} | {' | '.join(cells)} |", flush=True
        )


def make_rows(count: int) -> list[int]:
    """Replace all messages by ``count`` messages without vectors. Returns their ids."""
    run_sql("TRUNCATE auth_user CASCADE; TRUNCATE message_memories, embedding_models")
    runtime.reset()
    run_sql(
        "INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email, "
        "is_staff, is_active, date_joined) "
        "VALUES ('index', '!', false, '', '', '', false, true, now()); "
        "INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user"
    )
    current_model.check_model(MODEL)
    with connection.cursor() as cursor:
        cursor.execute(ROWS, [count])
        cursor.execute("SELECT id FROM standalone_chat_messages ORDER BY id")
        return [pk for (pk,) in cursor.fetchall()]


def fill(ids: list[int], vectors: NDArray[np.float32]) -> float:
    """Seconds to store the vectors like the backfill, in batches of 100."""
    rows = [
        (pk, f"Row {number}", vector)
        for number, (pk, vector) in enumerate(zip(ids, vectors, strict=True), 1)
    ]
    started = time.perf_counter()
    stored = sum(
        storage.store_all(message_tables()[0], batch, model=MODEL) for batch in batches(rows)
    )
    seconds = time.perf_counter() - started
    assert stored == len(rows)
    return seconds


def batches(
    rows: list[tuple[int, str, NDArray[np.float32]]],
) -> Iterator[list[tuple[int, str, NDArray[np.float32]]]]:
    """Batches of 100 rows."""
    for start in range(0, len(rows), 100):
        yield rows[start : start + 100]


def timed_create() -> float:
    """Seconds to build the index."""
    started = time.perf_counter()
    rebuild.create(target(), HnswOptions())
    return time.perf_counter() - started


def search(questions: NDArray[np.float32], right: list[set[int]]) -> tuple[float, float]:
    """The share of the nearest rows that the index finds, and the median time in ms.

    With pgvector's default ef_search of 40.
    """
    times, hits = [], 0
    run_sql("SET enable_seqscan = off")
    for question, nearest in zip(questions, right, strict=True):
        with connection.cursor() as cursor:
            started = time.perf_counter()
            cursor.execute(SEARCH, [str(question.tolist()), NEAREST])
            hits += len(nearest & {pk for (pk,) in cursor.fetchall()})
            times.append((time.perf_counter() - started) * 1000)
    run_sql("RESET enable_seqscan")
    return hits / (len(questions) * NEAREST), statistics.median(times)


def target() -> IndexState:
    """The HNSW index of standalone chats."""
    return read_states("standalone_chat_messages")[0]


def run_sql(statements: str) -> None:
    """Run statements without parameters."""
    with connection.cursor() as cursor:
        cursor.execute(statements)


if __name__ == "__main__":
    main()
