"""Measures recall of a user who repeats a word, and of another user before and after.

    .venv/bin/python -m benchmarks.hostile [--rows 200000] [--questions 60] [--json FILE]

Among 10,000 messages of others. All messages of the hostile user have the same text and embedding,
and their questions contain its word; the other user's questions are arbitrary. Both users recall in
the same database session, by words alone and by words and meaning.
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
from benchmarks.generated_messages import DataGenerator, Messages, fill, sign_up, write
from benchmarks.recall import ask_of, backend, drop_hnsw, nearest_first, refs_of, whole
from benchmarks.stage import scratch_database
from benchmarks.ways import WARM, Question, Way, as_row, ask_all, local

ROWS = 10_000  # messages of all users at the start
SIZES = (700, 20)  # messages of the other and of the hostile user at the start
OTHER, HOSTILE = 1, 2
WORD = "bread"


def main() -> None:
    """Print the table and the ratios."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=200_000, help="messages of the hostile user")
    parser.add_argument("--questions", type=int, default=60, help="for each measurement")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    outcome = run(options.rows, options.questions)
    print("| who asks | by | p50 ms | p95 ms | server CPU ms | CPU ms, client's too |")
    print("|---|---|---|---|---|---|")
    for who, ways in outcome["figures"].items():
        for by, row in ways.items():
            times = {name: row[name] for name in row if name.endswith("_ms")}
            print(as_row({"who": who, "by": by} | times))
    results.finish(outcome, options.json)


def run(rows: int, questions: int) -> dict[str, Any]:
    """The figures by user and time, then by way of recall, and their ratios."""
    with (
        tempfile.TemporaryDirectory() as folder,
        scratch_database() as url,
        psycopg.connect(url) as database,
    ):
        generator = DataGenerator()
        messages = write(Path(folder), ROWS, generator, sizes=SIZES)
        drop_hnsw(database)  # recall does not use them
        sign_up(database, messages)
        fill(database, messages, range(ROWS))
        others = ask_of(messages, OTHER, generator, questions)
        hostiles = hostile_questions(generator, questions)
        figures = {"another, before": measure(others)}
        fill(database, hostile_messages(messages, hostiles[0], rows), range(rows))
        figures["the hostile user"] = measure(hostiles)
        figures["another, after"] = measure(others)
    return {"rows": rows, "questions": questions, "figures": figures, "ratios": ratios_of(figures)}


def hostile_questions(generator: DataGenerator, questions: int) -> list[Question]:
    """Questions with the word and others, similar to the hostile messages."""
    vectors = generator.near(np.repeat(generator.vectors(1), questions + WARM, axis=0))
    texts = generator.texts(len(vectors), min_words=7, max_words=7)
    return [
        Question(number, HOSTILE, f"{WORD} {text}", vector, frozenset((0,)))
        for number, (text, vector) in enumerate(zip(texts, vectors, strict=True))
    ]


def hostile_messages(messages: Messages, near: Question, rows: int) -> Messages:
    """Messages with the word twenty times, all with the same vector."""
    vectors = np.broadcast_to(near.vector, (rows, len(near.vector)))
    return Messages(messages.folder, vectors, np.full(rows, HOSTILE), [f"{WORD} " * 20] * rows)


def measure(questions: list[Question]) -> dict[str, dict[str, float]]:
    """Measure both ways, alternating for each question."""
    ways = {
        "words": Way(local(lambda q: refs_of(whole(q, None))), backend),
        "words and meaning": Way(local(lambda q: nearest_first(whole(q, q.vector))), backend),
    }
    return ask_all(ways, questions)


def ratios_of(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """How the other user's recall changed."""
    before, after = figures["another, before"], figures["another, after"]
    return {
        f"another, by {by}: after / before, {name}": round(after[by][name] / before[by][name], 2)
        for by in before
        for name in ("p50_ms", "total_cpu_ms")
    }


if __name__ == "__main__":
    connection.close()
    main()
