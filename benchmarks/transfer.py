"""Measures lines per second of an import, of repeating it, and of an export.

    .venv/bin/python -m benchmarks.transfer [--rows 100000] [--users 50]

Uses a scratch database on the configured server. Conversations have 80 messages of 5 to 60 words.
Imports into an empty database; into a database with as many messages; with natural texts, which
have more different words; and without recall, to know its cost. In all other cases recall by words
finds the imported messages at the end.
"""

import argparse
import json
import os
import random
import string
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.db import connection
from psycopg import sql

from benchmarks.stage import scratch_database
from benchmarks.structures import WORDS
from chat.models import KINDS
from chat.samples.loading import FOLDER
from chat.transfer.exporting import export_lines
from chat.transfer.importing import import_lines
from chat.transfer.json_lines import Line, parse

DISABLE = sql.SQL("ALTER TABLE {} DISABLE TRIGGER USER")
DROP = sql.SQL("DROP FUNCTION {}")
CONVERSATION_MESSAGES = 80
START, LATER_START = datetime(2020, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)


def main() -> None:
    """Print the table."""
    options = parse_options()
    imported_lines = list(lines(options.rows, options.users))
    megabytes = sum(map(len, imported_lines)) / 1e6
    parsing = rate(map(parse, imported_lines))
    print(f"{options.rows:,} lines, {megabytes:.0f} MB; reading alone: {parsing}")
    print("| | import | the same again | export |")
    print("|---|---|---|---|")
    more = list(lines(options.rows, options.users, start=LATER_START))
    with scratch_database():
        report("empty database", imported_lines)
        report(f"{options.rows:,} messages there", more)
    with scratch_database():
        report("as people write", list(lines(options.rows, options.users, words=natural_words())))
    with scratch_database():
        remove_recall()
        report("without recall", imported_lines)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=50)
    return parser.parse_args()


def lines(
    rows: int, users: int, *, start: datetime = START, words: list[str] = WORDS
) -> Iterator[bytes]:
    """The lines of a file, always the same. Another start gives other conversations."""
    rng = random.Random(1)
    for number in range(rows):
        conversation, place = divmod(number, CONVERSATION_MESSAGES)
        role = "assistant" if place % 2 else "user"
        content = " ".join(rng.choices(words, k=rng.randrange(5, 60)))
        at = start + timedelta(hours=conversation, seconds=place)
        name = f"c{start.year} {conversation}"
        yield Line("chat", f"user{conversation % users}", name, role, content, at).as_bytes()


def natural_words() -> list[str]:
    """The words of the sample conversations; one word in twelve is rare, like names."""
    rng = random.Random(1)
    samples = (FOLDER / "conversations.jsonl").read_text().splitlines()
    words = [word for line in samples for word in json.loads(line)["content"].split()]
    return words * 5 + [
        "".join(rng.choices(string.ascii_lowercase, k=6)) for _ in range(len(words) * 5 // 11)
    ]


def remove_recall() -> None:
    """Disable the triggers, and drop the functions that imports call."""
    with connection.cursor() as cursor:
        for model in KINDS.values():
            table = model.memory_table.table
            for statement, name in ((DISABLE, table), (DROP, f"{table}_insert_memories")):
                cursor.execute(statement.format(sql.Identifier(name)))


def report(name: str, lines_to_import: list[bytes]) -> None:
    """Print a line of the table."""
    first, second = imported(lines_to_import), imported(lines_to_import)
    print(f"| {name} | {first} | {second} | {rate(export_lines(None))} |", flush=True)


def imported(lines_to_import: list[bytes]) -> str:
    """Lines per second of an import."""
    started = time.perf_counter()
    import_lines(lines_to_import, create_users=True, skip_bad=False, progress=lambda _lines: None)
    return per_second(len(lines_to_import), started)


def rate(results: Iterable[object]) -> str:
    """Results per second."""
    started = time.perf_counter()
    return per_second(sum(1 for _ in results), started)


def per_second(count: int, started: float) -> str:
    """A rate with thousands separators."""
    return f"{count / (time.perf_counter() - started):,.0f}"


if __name__ == "__main__":
    main()
