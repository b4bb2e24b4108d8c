"""Lines per second of an import, of the same import again, and of an export.

    .venv/bin/python -m benchmarks.transfer [--rows 100000] [--users 50]

In the scratch database of the configured server, on this machine; conversations of 80 messages, 5 to 60 words each:
into an empty database; beside as many messages that are there; of words as people write, which have more different
ones; and without recall, for what it takes of the rest. In all others what is imported is found by words at the end.
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

from benchmarks.load import scratch_database
from benchmarks.structures import WORDS
from chat.samples.loading import FOLDER
from chat.transfer.exporting import export_lines
from chat.transfer.importing import import_lines
from chat.transfer.lines import KINDS, Line, parse

A_CONVERSATION = 80  # messages
BEGAN, LATER = datetime(2020, 1, 1, tzinfo=UTC), datetime(2022, 1, 1, tzinfo=UTC)


def main() -> None:
    """Print the table."""
    options = parse_options()
    made = list(lines(options.rows, options.users))
    print(
        f"{options.rows:,} lines, {sum(map(len, made)) / 1e6:.0f} MB; reading alone: {rate(map(parse, made))}"
    )
    print("| | import | the same again | export |")
    print("|---|---|---|---|")
    more = list(lines(options.rows, options.users, began=LATER))
    with scratch_database():
        report("empty database", made)
        report(f"{options.rows:,} messages there", more)
    with scratch_database():
        report("as people write", list(lines(options.rows, options.users, words=as_people_write())))
    with scratch_database():
        leave_recall_out()
        report("without recall", made)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=50)
    return parser.parse_args()


def lines(
    rows: int, users: int, *, began: datetime = BEGAN, words: list[str] = WORDS
) -> Iterator[bytes]:
    """A file, the same each time; what begins at another time is of other conversations."""
    luck = random.Random(1)
    for number in range(rows):
        conversation, place = divmod(number, A_CONVERSATION)
        role = "assistant" if place % 2 else "user"
        content = " ".join(luck.choices(words, k=luck.randrange(5, 60)))
        at = began + timedelta(hours=conversation, seconds=place)
        name = f"c{began.year} {conversation}"
        yield Line("chat", f"user{conversation % users}", name, role, content, at).as_bytes()


def as_people_write() -> list[str]:
    """The words of the sample conversations, each as often as there, and one in twelve a rare one: names, numbers."""
    luck = random.Random(1)
    samples = (FOLDER / "conversations.jsonl").read_text().splitlines()
    said = [word for line in samples for word in json.loads(line)["content"].split()]
    return said * 5 + [
        "".join(luck.choices(string.ascii_lowercase, k=6)) for _ in range(len(said) * 5 // 11)
    ]


def leave_recall_out() -> None:
    """No trigger learns, nor does an import."""
    with connection.cursor() as cursor:
        for model in KINDS.values():
            cursor.execute(f"ALTER TABLE {model._meta.db_table} DISABLE TRIGGER USER")
            cursor.execute(f"DROP FUNCTION {model.memory_table.table}_insert_memories")


def report(name: str, made: list[bytes]) -> None:
    """A line of the table."""
    print(
        f"| {name} | {imported(made)} | {imported(made)} | {rate(export_lines(None))} |", flush=True
    )


def imported(made: list[bytes]) -> str:
    """Lines a second of an import."""
    began = time.perf_counter()
    import_lines(made, create_users=True, skip_bad=False, progress=lambda _lines: None)
    return per_second(len(made), began)


def rate(results: Iterable[object]) -> str:
    """Results a second."""
    began = time.perf_counter()
    return per_second(sum(1 for _ in results), began)


def per_second(count: int, began: float) -> str:
    """In thousands as one reads them."""
    return f"{count / (time.perf_counter() - began):,.0f}"


if __name__ == "__main__":
    main()
