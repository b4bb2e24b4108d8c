"""Measures how recall, writing and storage change while other users' messages grow.

    .venv/bin/python -m benchmarks.scale [--rows 10000 100000 300000] [--hnsw-rows 100000]
                                         [--json FILE]

At each number of rows: recall of users with 20 to 20,000 messages, the sizes of tables and indexes,
and the server's processor time to insert a message and to store an embedding. For these, blocks
without recall (bare: triggers disabled) and with recall alternate. Blocks with recall and HNSW
follow, up to ``--hnsw-rows``, because that index takes long to build.

A model is fitted to all numbers of rows but the last, and its predictions are compared with what
was measured there. With a million rows, about an hour: ``--rows 10000 100000 300000 1000000``.
"""

import argparse
import itertools
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import psycopg

from benchmarks import results, storage_forms
from benchmarks.generated_messages import SIZES, DataGenerator, Messages, fill, sign_up, write
from benchmarks.recall import (
    ask_of,
    backend,
    build_hnsw,
    drop_hnsw,
    nearest_first,
    sizes,
    whole,
)
from benchmarks.scale_model import compare
from benchmarks.stage import scratch_database
from benchmarks.ways import Way, as_row, ask_all, local
from benchmarks.write_costs import costs

# The ids of messages follow from their places in the data: benchmarks.generated_messages.reference.
NEXT_ID = """
    SELECT setval(pg_get_serial_sequence('standalone_chat_messages', 'id'), max(id))
    FROM standalone_chat_messages
"""
Figures = dict[str, dict[str, float]]  # by number of rows, then by name


def main() -> None:
    """Print the tables and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, nargs="+", default=[10_000, 100_000, 300_000])
    parser.add_argument("--questions", type=int, default=60, help="of each measured user")
    parser.add_argument(
        "--hnsw-rows", type=int, default=100_000, help="build the HNSW index up to so many rows"
    )
    parser.add_argument(
        "--forms", action="store_true", help="then try hash partitions and halfvec on this data"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    outcome = run(options.rows, options.questions, hnsw_rows=options.hnsw_rows, forms=options.forms)
    print_table(outcome["figures"])
    for form in outcome["forms"].values():
        print()
        print_table(form)
    if outcome["predicted"]:
        print_predictions(outcome)
    results.finish(outcome, options.json)


def run(rows: list[int], questions: int, *, hnsw_rows: int, forms: bool = False) -> dict[str, Any]:
    """The figures by number of rows, their ratios, and the model's predictions for the last."""
    figures: Figures = {}
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database() as url,
        psycopg.connect(url) as database,
    ):
        generator = DataGenerator()
        sizes_that_fit = tuple(size for size in SIZES if 2 * size <= rows[-1])
        messages = write(Path(folder), rows[-1], generator, sizes=sizes_that_fit, stages=rows)
        drop_hnsw(database)
        sign_up(database, messages)
        for before, total in zip([0, *rows], rows, strict=False):
            fill(database, messages, range(before, total))
            figures[str(total)] = {
                **recall_of_users(messages, total, generator, questions),
                **writing(database, generator, hnsw=total <= hnsw_rows),
            }
            print(f"{total:,} rows are measured", flush=True)
        tried = {}
        if forms:
            tried["partitions"] = storage_forms.partitions(database, messages, generator)
            tried["halfvec"] = storage_forms.halfvec(database, messages, generator)
    predicted = compare(figures) if len(figures) > 2 else {}
    return {
        "questions": questions,
        "figures": figures,
        "predicted": predicted,
        "forms": tried,
        "ratios": ratios_of(figures),
    }


def recall_of_users(
    messages: Messages, total: int, generator: DataGenerator, questions: int
) -> dict[str, float]:
    """The share of the five nearest that recall finds, and its times, by size of user."""
    measured: dict[str, float] = {}
    for user, size in enumerate(SIZES, start=1):
        if (messages.users[:total] == user).sum() < size:
            continue  # comes with more rows
        way = Way(local(lambda q: nearest_first(whole(q, q.vector))), backend)
        row = ask_all({"recall": way}, ask_of(messages, user, generator, questions))["recall"]
        measured |= {
            f"recall of {size}, found": row["found"],
            f"recall of {size}, p50 ms": row["p50_ms"],
            f"recall of {size}, CPU ms": row["total_cpu_ms"],
        }
    return measured


def writing(
    database: psycopg.Connection[Any], generator: DataGenerator, *, hnsw: bool
) -> dict[str, float]:
    """Sizes in MB, and server CPU in ms for a message. The next message gets the id as before."""
    measured = costs(database, generator, ("bare", "recall"))
    if hnsw:
        build_hnsw(database)
        measured |= costs(database, generator, ("recall and HNSW",))
    measured |= {f"{name}, MB": mb for name, mb in sizes(database).items() if mb}
    drop_hnsw(database)
    database.execute(NEXT_ID)
    return measured


def ratios_of(figures: Figures) -> dict[str, float]:
    """What recall adds to a message, and recall's times over those at the rows before."""
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
    for before, after in itertools.pairwise(totals):
        for name in recall_times(figures[before]):
            ratio = figures[after][name] / figures[before][name]
            ratios[f"{name[:-3]}, {after} / {before} rows"] = round(ratio, 2)
    return ratios


def recall_times(row: dict[str, float]) -> Iterator[str]:
    """The names of recall's times among the figures of a number of rows."""
    return (name for name in row if name.startswith("recall of ") and name.endswith(" ms"))


def print_table(figures: Figures) -> None:
    """Print a Markdown table with a line for each figure."""
    names = dict.fromkeys(name for row in figures.values() for name in row)
    heads = (f"{int(head):,}" if head.isdecimal() else head for head in figures)
    print(f"| | {' | '.join(heads)} |")
    print(f"|{'---|' * (len(figures) + 1)}")
    for name in names:
        print(
            as_row({"name": name, **{total: row.get(name, "") for total, row in figures.items()}})
        )


def print_predictions(outcome: dict[str, Any]) -> None:
    """Print what the model predicted for the last number of rows, and what it expects beyond."""
    measured = outcome["figures"][list(outcome["figures"])[-1]]
    print("\n| | measured | predicted | error | at 10,000,000 | at 1,000,000,000 |")
    print("|---|---|---|---|---|---|")
    for name, values in outcome["predicted"].items():
        print(as_row({"name": name, "measured": measured[name], **values}))


if __name__ == "__main__":
    main()
