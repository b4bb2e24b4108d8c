"""What the operator's commands have in common: help that teaches, ``--json``, and one line for what goes wrong."""

import json
import os
import sys
from argparse import ArgumentParser, ArgumentTypeError, RawDescriptionHelpFormatter
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, TextIO

from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.db import Error

from retrieval.db import NoMemory
from retrieval.embeddings.vectors import EmbeddingError
from retrieval.models import message_tables

NOT_MIGRATED = "the database has no memory yet, or an older form of it: run manage.py migrate"
UNDEFINED_TABLE = "42P01"
READ_ONLY = "25006"  # read_only_sql_transaction; https://www.postgresql.org/docs/current/errcodes-appendix.html


class Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Help in lines as they are written, so that an example can be pasted."""


class OperatorCommand(BaseCommand):
    """A command that explains a failure in one line and exits with 1; ``run`` does the work."""

    requires_system_checks = ()

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With the help's own lines, and ``--json``."""
        parser = super().create_parser(prog_name, subcommand, formatter_class=Formatter, **kwargs)
        parser.add_argument(
            "--json", action="store_true", help="one JSON object on standard output, for scripts"
        )
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        """Do it, each line seen as it is written. CommandError: why not; SystemExit(1): nobody reads what it says."""
        if isinstance(sys.stdout, TextIOWrapper):  # into a pipe or a file Python keeps 8 kB back
            sys.stdout.reconfigure(line_buffering=True)
        try:
            self.run(**options)
        except BrokenPipeError:  # the reader, such as head, has seen enough
            for stream in (sys.stdout, sys.stderr):
                discard_output(stream)
            raise SystemExit(1) from None
        except NoMemory as error:
            raise CommandError(NOT_MIGRATED) from error
        except EmbeddingError as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error

    def run(self, **options: Any) -> None:
        """The command's work."""
        raise NotImplementedError

    def write_json(self, found: object) -> None:
        """The one object of ``--json``."""
        self.stdout.write(json.dumps(found))


def discard_output(stream: TextIO) -> None:
    """The stream, which nobody reads, leads nowhere: else Python would fail once more when it flushes at its end."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def summarise_db_error(error: Error) -> str:
    """What the database said, without the statement."""
    cause = error.__cause__ or error
    if getattr(cause, "sqlstate", None) == UNDEFINED_TABLE:
        return NOT_MIGRATED
    if getattr(cause, "sqlstate", None) == READ_ONLY:
        return "the database is read-only, a replica perhaps: name the primary in DATABASE_URL"
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return f"the database failed: {lines[0]}"


def add_table(parser: ArgumentParser) -> None:
    """``--table``, one of the tables of messages."""
    parser.add_argument(
        "--table",
        choices=[one.table for one in message_tables()],
        help="only this table, instead of all",
    )


def number(
    least: float, of: Callable[[str], Any], what: str, *, most: float = sys.float_info.max
) -> Callable[[str], Any]:
    """An argument's type: ``of(text)``, from ``least`` to ``most``; else wrong usage, exit 2."""

    def parse(text: str) -> Any:
        try:
            value = of(text)
        except ValueError:
            value = None
        if value is None or not least <= value <= most:
            raise ArgumentTypeError(f"{text!r} is not {what}")
        return value

    return parse
