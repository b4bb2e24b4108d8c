"""Arguments that several commands share. A value out of range is wrong usage: exit code 2."""

from argparse import ArgumentParser, ArgumentTypeError
from collections.abc import Callable
from sys import float_info
from typing import Any

from retrieval.models import message_tables


def add_table_argument(parser: ArgumentParser) -> None:
    """Add ``--table``, which names one of the message tables."""
    parser.add_argument(
        "--table",
        choices=[table.table for table in message_tables()],
        help="only this table instead of all",
    )


def number(
    parse: Callable[[str], Any],
    description: str,
    *,
    minimum: float,
    maximum: float = float_info.max,
) -> Callable[[str], Any]:
    """An argparse type: ``parse(text)`` from ``minimum`` to ``maximum``.

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


def whole_number_in(limits: tuple[int, int]) -> Callable[[str], Any]:
    minimum, maximum = limits
    description = f"a whole number from {minimum} to {maximum}"
    return number(int, description, minimum=minimum, maximum=maximum)


whole_number = number(int, "a whole number, 1 or more", minimum=1)
us_dollars = number(float, "an amount in US dollars, 0 or more", minimum=0)
seconds = number(float, "seconds, 0 or more", minimum=0)
