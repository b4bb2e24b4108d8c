"""Recall for the same user while everybody else's messages grow, and what a message costs as it comes.

    .venv/bin/python -m benchmarks.growth [--rows 10000 100000 300000] [--hnsw-rows 100000] [--json FILE]

At each size: the median of the whole recall for two users whose messages were there from the start, the sizes of the
indexes, and the server's processor time for an inserted message and for a stored embedding, a statement each, in
blocks that take turns: bare (recall's triggers off), with recall, and, up to ``--hnsw-rows`` since that index takes
long to build, with recall and HNSW. With a million rows: ``--rows 10000 100000 1000000``.
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
from benchmarks.load import scratch_database
from benchmarks.people import People, World, fill, sign_up, write
from benchmarks.recall import INDEXES, ask_of, backend, build_hnsw, nearest_first, sizes, whole
from benchmarks.ways import Way, as_row, ask_all, cpu_ms, local

SIZES = (700, 2_000)  # messages of the users that are asked about
BLOCK, BLOCKS = 50, 16  # messages of a block, blocks of each kind
INSERT = """INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    VALUES (%s, %s, 'user', %s, now()) RETURNING id"""
EMBED = "UPDATE standalone_chat_messages SET embedding = %b::vector WHERE id = %s"
SWITCH = "ALTER TABLE standalone_chat_messages {0} TRIGGER memory_insert, {0} TRIGGER memory_update"


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
    found = run(options.rows, options.questions, hnsw_rows=options.hnsw_rows)
    print_table(found["figures"])
    results.finish(found, options.json)


def run(rows: list[int], questions: int, *, hnsw_rows: int) -> dict[str, Any]:
    """Figures by size, and their ratios."""
    figures: dict[str, dict[str, float]] = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database() as url,
        psycopg.connect(url) as database,
    ):
        world = World()
        people = write(Path(folder), rows[-1], world, sizes=SIZES, within=rows[0])
        drop_hnsw(database)
        sign_up(database, people)
        for before, size in zip([0, *rows], rows, strict=False):
            fill(database, people, range(before, size))
            figures[str(size)] = measure(database, people, world, questions, hnsw=size <= hnsw_rows)
    return {"questions": questions, "figures": figures, "ratios": ratios_of(figures)}


def measure(
    database: psycopg.Connection[Any], people: People, world: World, questions: int, *, hnsw: bool
) -> dict[str, float]:
    """At one size: recall, sizes in megabytes, milliseconds of the server's processor for a message."""
    found: dict[str, float] = {}
    for user, size in enumerate(SIZES, start=1):
        way = Way(local(lambda q: nearest_first(whole(q, q.vector))), backend)
        row = ask_all({"recall": way}, ask_of(people, user, world, questions))["recall"]
        found |= {
            f"recall of {size}, p50 ms": row["p50_ms"],
            f"recall of {size}, CPU ms": row["cpu_ms"],
        }
    found |= costs(database, world, ("bare", "recall"))
    if hnsw:
        build_hnsw(database)
        found |= {f"{name}, MB": value for name, value in sizes(database).items()}
        found |= costs(database, world, ("recall and HNSW",))
        drop_hnsw(database)
    else:
        found |= {f"{name}, MB": value for name, value in sizes(database).items()}
    return found


def costs(
    database: psycopg.Connection[Any], world: World, kinds: tuple[str, ...]
) -> dict[str, float]:
    """Server CPU, ms: ``insert, KIND`` and ``embed, KIND``; the kinds take turns, block by block."""
    taken: dict[str, list[float]] = {}
    for block in range(BLOCKS + 1):  # the first is not counted: caches fill
        for kind in kinds:
            database.execute(SWITCH.format("DISABLE" if kind == "bare" else "ENABLE"))
            for step, ms in one_block(database, world).items():
                if block:
                    taken.setdefault(f"{step}, {kind}, CPU ms", []).append(ms / BLOCK)
    database.execute(SWITCH.format("ENABLE"))
    return {name: round(float(np.median(values)), 3) for name, values in taken.items()}


def one_block(database: psycopg.Connection[Any], world: World) -> dict[str, float]:
    """Insert messages one by one, then store their embeddings one by one."""
    pids = [database.info.backend_pid]
    texts, vectors = world.texts(BLOCK), world.vectors(BLOCK)
    began = cpu_ms(pids)
    ids = [(database.execute(INSERT, [1, 1, text]).fetchone() or (0,))[0] for text in texts]
    inserted = cpu_ms(pids)
    for pk, vector in zip(ids, vectors, strict=True):
        database.execute(EMBED, [vector, pk])
    embedded = cpu_ms(pids)
    database.execute("DELETE FROM standalone_chat_messages WHERE id = ANY (%s)", [ids])
    return {"insert": inserted - began, "embed": embedded - inserted}


def drop_hnsw(database: psycopg.Connection[Any]) -> None:
    """Recall does not need them."""
    for name in INDEXES:
        database.execute(f"DROP INDEX IF EXISTS {name}")


def ratios_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """The largest against the smallest but one; and what recall adds to a message, in milliseconds."""
    ratios: dict[str, float] = {}
    sizes_of = list(figures)
    for at in sizes_of:
        row = figures[at]
        for step in ("insert", "embed"):
            added = row[f"{step}, recall, CPU ms"] - row[f"{step}, bare, CPU ms"]
            ratios[f"{at}: {step} with recall over bare, CPU ms"] = round(added, 3)
            ratios[f"{at}: {step} with recall / bare, CPU"] = round(
                1 + added / row[f"{step}, bare, CPU ms"], 2
            )
    for size in SIZES if len(sizes_of) > 1 else ():
        for unit in ("p50 ms", "CPU ms"):
            before, after = (figures[at][f"recall of {size}, {unit}"] for at in sizes_of[-2:])
            ratios[f"recall of {size}, {sizes_of[-1]} / {sizes_of[-2]} rows, {unit[:3]}"] = round(
                after / before, 2
            )
    return ratios


def print_table(figures: dict[str, dict[str, float]]) -> None:
    """As Markdown, a line a figure."""
    names = list(dict.fromkeys(name for row in figures.values() for name in row))
    print(
        f"| rows | {' | '.join(f'{int(size):,}' for size in figures)} |\n|{'---|' * (len(figures) + 1)}"
    )
    for name in names:
        print(as_row({"name": name, **{size: row.get(name, "") for size, row in figures.items()}}))


if __name__ == "__main__":
    main()
