"""Measures recall while other users' messages grow, and the cost of writing a message.

    .venv/bin/python -m benchmarks.growth [--rows 10000 100000 300000] [--hnsw-rows 100000]
                                          [--json FILE]

At each number of rows: the median of the whole recall for two users whose messages were there from
the start, the sizes of the indexes, and the server's processor time to insert a message and to
store an embedding. For these, blocks without recall (bare: triggers disabled) and with recall
alternate. Blocks with recall and HNSW follow, up to ``--hnsw-rows``, because that index takes long
to build. With a million rows: ``--rows 10000 100000 1000000``.
"""

import argparse
import os
import tempfile
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
import psycopg

from benchmarks import results
from benchmarks.generated_messages import DataGenerator, Messages, fill, sign_up, write
from benchmarks.processes import cpu_ms
from benchmarks.recall import (
    ask_of,
    backend,
    build_hnsw,
    drop_hnsw,
    nearest_first,
    sizes,
    whole,
)
from benchmarks.stage import scratch_database
from benchmarks.ways import Way, as_row, ask_all, local

USER_SIZES = (700, 2_000)  # messages of the users whose recall is measured
BLOCK, BLOCKS = 50, 16  # messages in a block, blocks of each kind
INSERT = """INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    VALUES (%s, %s, 'user', %s, now()) RETURNING id"""
EMBED = "UPDATE standalone_chat_messages SET embedding = %b::vector WHERE id = %s"
DISABLE = "ALTER TABLE standalone_chat_messages DISABLE TRIGGER USER"
ENABLE = "ALTER TABLE standalone_chat_messages ENABLE TRIGGER USER"


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--questions", type=int, default=60)
    parser.add_argument(
        "--hnsw-rows", type=int, default=100_000, help="build the HNSW index up to so many rows"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    outcome = run(options.rows, options.questions, hnsw_rows=options.hnsw_rows)
    print_table(outcome["figures"])
    results.finish(outcome, options.json)


def run(rows: list[int], questions: int, *, hnsw_rows: int) -> dict[str, Any]:
    """The figures by number of rows, and their ratios."""
    figures: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database() as url,
        psycopg.connect(url) as database,
    ):
        generator = DataGenerator()
        messages = write(Path(folder), rows[-1], generator, sizes=USER_SIZES, within=rows[0])
        drop_hnsw(database)
        sign_up(database, messages)
        for before, total in zip([0, *rows], rows, strict=False):
            fill(database, messages, range(before, total))
            figures[str(total)] = measure(
                database, messages, generator, questions, hnsw=total <= hnsw_rows
            )
    return {"questions": questions, "figures": figures, "ratios": ratios_of(figures)}


def measure(
    database: psycopg.Connection[Any],
    messages: Messages,
    generator: DataGenerator,
    questions: int,
    *,
    hnsw: bool,
) -> dict[str, float]:
    """The figures at a number of rows: recall, sizes in MB, server CPU in ms for a message."""
    at_this_total: dict[str, float] = {}
    for user, user_size in enumerate(USER_SIZES, start=1):
        way = Way(local(lambda q: nearest_first(whole(q, q.vector))), backend)
        row = ask_all({"recall": way}, ask_of(messages, user, generator, questions))["recall"]
        at_this_total |= {
            f"recall of {user_size}, p50 ms": row["p50_ms"],
            f"recall of {user_size}, CPU ms": row["total_cpu_ms"],
        }
    at_this_total |= costs(database, generator, ("bare", "recall"))
    if hnsw:
        build_hnsw(database)
        at_this_total |= {f"{name}, MB": value for name, value in sizes(database).items()}
        at_this_total |= costs(database, generator, ("recall and HNSW",))
        drop_hnsw(database)
    else:
        at_this_total |= {f"{name}, MB": value for name, value in sizes(database).items()}
    return at_this_total


def costs(
    database: psycopg.Connection[Any], generator: DataGenerator, kinds: tuple[str, ...]
) -> dict[str, float]:
    """Server CPU in ms: ``insert, KIND`` and ``embed, KIND``, in alternating blocks."""
    taken: dict[str, list[float]] = {}
    for block in range(BLOCKS + 1):  # the first is a warm-up
        for kind in kinds:
            database.execute(DISABLE if kind == "bare" else ENABLE)
            for step, ms in run_block(database, generator).items():
                if block:
                    taken.setdefault(f"{step}, {kind}, CPU ms", []).append(ms / BLOCK)
    database.execute(ENABLE)
    return {name: round(float(np.median(values)), 3) for name, values in taken.items()}


def run_block(database: psycopg.Connection[Any], generator: DataGenerator) -> dict[str, float]:
    """Insert messages one by one, then store their embeddings one by one. CPU in ms."""
    pids = [database.info.backend_pid]
    texts, vectors = generator.texts(BLOCK), generator.vectors(BLOCK)
    started = cpu_ms(pids)
    ids = [(database.execute(INSERT, [1, 1, text]).fetchone() or (0,))[0] for text in texts]
    inserted = cpu_ms(pids)
    for pk, vector in zip(ids, vectors, strict=True):
        database.execute(EMBED, [vector, pk])
    embedded = cpu_ms(pids)
    database.execute("DELETE FROM standalone_chat_messages WHERE id = ANY (%s)", [ids])
    return {"insert": inserted - started, "embed": embedded - inserted}


def ratios_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What recall adds to a message; and recall's time at the last number of rows, divided by that
    at the one before.
    """
    ratios: dict[str, float] = {}
    totals = list(figures)
    for at in totals:
        row = figures[at]
        for step in ("insert", "embed"):
            added = row[f"{step}, recall, CPU ms"] - row[f"{step}, bare, CPU ms"]
            ratios[f"{at}: {step} with recall over bare, CPU ms"] = round(added, 3)
            ratios[f"{at}: {step} with recall / bare, CPU"] = round(
                1 + added / row[f"{step}, bare, CPU ms"], 2
            )
    for size in USER_SIZES if len(totals) > 1 else ():
        for unit in ("p50 ms", "CPU ms"):
            before, after = (figures[at][f"recall of {size}, {unit}"] for at in totals[-2:])
            ratios[f"recall of {size}, {totals[-1]} / {totals[-2]} rows, {unit[:3]}"] = round(
                after / before, 2
            )
    return ratios


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """Print a Markdown table with a line for each figure."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    print(f"| rows | {' | '.join(f'{int(total):,}' for total in figures)} |")
    print(f"|{'---|' * (len(figures) + 1)}")
    for name in names:
        print(
            as_row({"name": name, **{total: row.get(name, "") for total, row in figures.items()}})
        )


if __name__ == "__main__":
    main()
