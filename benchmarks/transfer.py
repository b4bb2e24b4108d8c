"""Lines per second of an import, of the same import again, and of an export; with recall's triggers and without.

    .venv/bin/python -m benchmarks.transfer [--rows 100000] [--users 50]

In the scratch database of the configured server, on this machine; conversations of 80 messages, 5 to 60 words each.
"""

import argparse
import os
import random
import time
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime, timedelta

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.db import connection

from benchmarks.load import scratch_database
from benchmarks.structures import WORDS
from chat.transfer.exporting import export_lines
from chat.transfer.importing import import_lines
from chat.transfer.lines import KINDS, Line, parse

A_CONVERSATION = 80  # messages
BEGAN = datetime(2020, 1, 1, tzinfo=UTC)


def main() -> None:
    """Print the table."""
    options = parse_options()
    made = list(lines(options.rows, options.users))
    print(f"{options.rows:,} lines, {sum(map(len, made)) / 1e6:.0f} MB; reading alone: {rate(map(parse, made))}")
    print("| recall's triggers | import | again | export |")
    print("|---|---|---|---|")
    for triggers in ("on", "off"):
        with scratch_database():
            switch(triggers)
            print(f"| {triggers} | {imported(made)} | {imported(made)} | {rate(export_lines(None))} |", flush=True)


def parse_options() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=50)
    return parser.parse_args()


def lines(rows: int, users: int) -> Iterator[bytes]:
    """A file, the same each time."""
    luck = random.Random(1)
    for number in range(rows):
        conversation, place = divmod(number, A_CONVERSATION)
        role = "assistant" if place % 2 else "user"
        content = " ".join(luck.choices(WORDS, k=luck.randrange(5, 60)))
        at = BEGAN + timedelta(hours=conversation, seconds=place)
        yield Line("chat", f"user{conversation % users}", f"c{conversation}", role, content, at).as_bytes()


def switch(triggers: str) -> None:
    """The triggers of both message tables, as they are or off."""
    with connection.cursor() as cursor:
        for model in KINDS.values():
            verb = "ENABLE" if triggers == "on" else "DISABLE"
            cursor.execute(f"ALTER TABLE {model._meta.db_table} {verb} TRIGGER USER")


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
