"""Arguments that several commands share. A value out of range is wrong usage: exit code 2."""

import sys
from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from typing import Any

from retrieval.models import message_tables


def add_table_argument(parser: ArgumentParser) -> None:
    """Add ``--table``, which names one of the message tables."""
    parser.add_argument(
        "--table",
        choices=[source.table for source in message_tables()],
        help="only this table instead of all",
    )


def number(
    minimum: float,
    parse: Callable[[str], Any],
    description: str,
    *,
    maximum: float = sys.float_info.max,
) -> Callable[[str], Any]:
    """An argparse type: ``parse(text)``, which must lie between ``minimum`` and ``maximum``.

    ``description`` completes the error message "'x' is not …".
    """

    def argument(text: str) -> Any:
        try:
            value = parse(text)
        except ValueError:
            value = None
        if value is None or not minimum <= value <= maximum:
            raise ArgumentTypeError(f"{text!r} is not {description}")
        return value

    return argument


whole_number = number(1, int, "a whole number, 1 or more")
us_dollars = number(0, float, "an amount in US dollars, 0 or more")
seconds = number(0, float, "seconds, 0 or more")
