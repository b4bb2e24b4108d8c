"""Recall of a user who has said one word over and over, and of another one, before and after.

    .venv/bin/python -m benchmarks.hostile [--rows 200000] [--questions 60] [--json FILE]

Among 10,000 messages of others. All that the hostile user says is one text, embedded; their questions hold its word,
and those of the other user any. Both ask in one session of the database, by words alone, and by words and meaning.
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
from django.db import connection

from benchmarks import results
from benchmarks.growth import drop_hnsw
from benchmarks.load import scratch_database
from benchmarks.people import People, World, fill, sign_up, write
from benchmarks.recall import ask_of, backend, nearest_first, whole
from benchmarks.ways import WARM, Question, Way, as_row, ask_all, local

ROWS = 10_000  # messages of all before
SIZES = (700, 20)  # of the other user, and of the hostile one before
OTHER, HOSTILE = 1, 2
WORD = "bread"


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000, help="messages of the hostile user")
    parser.add_argument("--questions", type=int, default=60, help="each time")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    found = run(options.rows, options.questions)
    print(
        "| who asks | by | p50 ms | p95 ms | server CPU ms | CPU ms, client's too |\n|---|---|---|---|---|---|"
    )
    for who, ways in found["figures"].items():
        for by, row in ways.items():
            print(
                as_row(
                    {"who": who, "by": by}
                    | {name: row[name] for name in row if name.endswith("_ms")}
                )
            )
    results.finish(found, options.json)


def run(rows: int, questions: int) -> dict[str, Any]:
    """Figures by who asks when, then by what; their ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database() as url,
        psycopg.connect(url) as database,
    ):
        world = World()
        people = write(Path(folder), ROWS, world, sizes=SIZES)
        drop_hnsw(database)  # recall does not need them
        sign_up(database, people)
        fill(database, people, range(ROWS))
        others, hostiles = (
            ask_of(people, OTHER, world, questions),
            asked_by_hostile(world, questions),
        )
        figures = {"another, before": measure(others)}
        fill(database, said_by_hostile(people, hostiles[0], rows), range(rows))
        figures["the hostile user"] = measure(hostiles)
        figures["another, after"] = measure(others)
    return {"rows": rows, "questions": questions, "figures": figures, "ratios": ratios_of(figures)}


def asked_by_hostile(world: World, questions: int) -> list[Question]:
    """Of the word and others, near what was said."""
    vectors = world.near(np.repeat(world.vectors(1), questions + WARM, axis=0))
    texts = world.texts(len(vectors), least=7, most=7)
    return [
        Question(number, HOSTILE, f"{WORD} {text}", vector, frozenset((0,)))
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


def said_by_hostile(people: People, near: Question, rows: int) -> People:
    """The word twenty times over, so many times, always with the same vector."""
    vectors = np.broadcast_to(near.vector, (rows, len(near.vector)))
    return People(people.folder, vectors, np.full(rows, HOSTILE), [f"{WORD} " * 20] * rows)


def measure(questions: list[Question]) -> dict[str, dict[str, float]]:
    """Both ways, question by question in turn."""
    ways = {
        "words": Way(local(lambda q: [one.ref for one in whole(q, None)]), backend),
        "words and meaning": Way(local(lambda q: nearest_first(whole(q, q.vector))), backend),
    }
    return ask_all(ways, questions)


def ratios_of(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """What has become of the other user's recall."""
    before, after = figures["another, before"], figures["another, after"]
    return {
        f"another, by {by}: after / before, {name}": round(after[by][name] / before[by][name], 2)
        for by in before
        for name in ("p50_ms", "cpu_ms")
    }


if __name__ == "__main__":
    connection.close()
    main()
