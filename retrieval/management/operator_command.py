"""The base class of the operator's commands: help with examples, ``--json``, one-line errors."""

import json
import os
import sys
from argparse import RawDescriptionHelpFormatter
from collections.abc import Callable
from io import TextIOWrapper
from typing import Any, TextIO

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.db import Error

from retrieval.db import NoMemory
from retrieval.db_errors import sqlstate
from retrieval.embeddings.errors import EmbeddingError
from retrieval.management.progress import Progress
from retrieval.schema.extension import VectorUnavailable

NOT_MIGRATED = "the database has no memory yet, or an older form of it: run manage.py migrate"
# https://www.postgresql.org/docs/current/errcodes-appendix.html
UNDEFINED_TABLE = "42P01"
READ_ONLY_TRANSACTION = "25006"
NOT_CONNECTED = "connection failed"  # psycopg's own words: no server has answered, or it refused


class HelpFormatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Keeps the line breaks of the help text, so that its examples can be pasted."""


class OperatorCommand(BaseCommand):
    """A command whose failures are one line on standard error and exit code 1.

    Subclasses implement ``run``; the docstring of their module is the help text.
    ``has_json_output`` adds ``--json``.
    """

    requires_system_checks = ()
    has_json_output = True

    def __init_subclass__(cls) -> None:
        cls.help = sys.modules[cls.__module__].__doc__ or ""

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        parser = super().create_parser(
            prog_name, subcommand, formatter_class=HelpFormatter, **kwargs
        )
        if self.has_json_output:
            parser.add_argument(
                "--json", action="store_true", help="print one JSON object, for scripts"
            )
        return parser

    def handle(self, *args: Any, **options: Any) -> None:
        """Call ``run``. Raises CommandError with the reason, SystemExit(1) if the output is closed.

        Output is flushed after each line: into a pipe or a file Python would keep back 8 kB.
        """
        if isinstance(sys.stdout, TextIOWrapper):
            sys.stdout.reconfigure(line_buffering=True)
        try:
            self.run(**options)
        except BrokenPipeError:  # the reader, such as head, has ended
            for stream in (sys.stdout, sys.stderr):
                discard_output(stream)
            raise SystemExit(1) from None
        except NoMemory as error:
            raise CommandError(NOT_MIGRATED) from error
        except (EmbeddingError, VectorUnavailable) as error:
            raise CommandError(str(error)) from error
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error

    def run(self, **options: Any) -> None:
        raise NotImplementedError

    def report(self, options: dict[str, Any], as_json: object, *lines: str) -> None:
        """Print ``as_json`` as one object with ``--json``, else the lines."""
        if options["json"]:
            self.write_json(as_json)
        else:
            self.stdout.write("\n".join(lines))

    def write_json(self, as_json: object) -> None:
        self.stdout.write(json.dumps(as_json))

    def progress(
        self, *, on_stderr: bool, write: Callable[[str], object] | None = None
    ) -> Progress:
        """Progress on standard output, or on standard error if the former is for data."""
        out, stream = (self.stderr, sys.stderr) if on_stderr else (self.stdout, sys.stdout)
        return Progress(
            write or (lambda line: out.write(line, str)), terminal=stream if out.isatty() else None
        )


def discard_output(stream: TextIO) -> None:
    """Send the rest of the stream to /dev/null.

    Python flushes its streams when it exits; on a closed pipe that would fail once more.
    """
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def summarise_db_error(error: Error) -> str:
    """The first line of the database's own message, without the statement.

    If the connection failed, also the name of the setting with the address; never its value.
    """
    cause = error.__cause__ or error
    state = sqlstate(error)
    if state == UNDEFINED_TABLE:
        return NOT_MIGRATED
    if state == READ_ONLY_TRANSACTION:
        return "the database is read-only, a replica perhaps: name the primary in DATABASE_URL"
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    if lines[0].startswith(NOT_CONNECTED):
        return f"the database failed: {lines[0]}; correct {settings.DATABASE_SETTING}"
    return f"the database failed: {lines[0]}"
