"""Write all messages as JSON Lines to standard output, in the format that import_messages reads.

Safe under traffic. For example:

  manage.py export_messages --user alice > alice.jsonl

Locks: none. Messages that are written meanwhile may or may not be in it.
"""

import os
import sys
from argparse import ArgumentParser
from collections.abc import Iterable
from typing import Any

from django.core.management.base import CommandError
from django.db import Error

from chat.auth.usernames import find_user
from chat.transfer.exporting import export_lines
from retrieval import audit
from retrieval.db_errors import describe_db_error
from retrieval.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    has_json_output = False

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--user", metavar="NAME", help="only this user's messages instead of all users'"
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: the user does not exist, or the export is incomplete."""
        name = options["user"]
        try:
            user = None if name is None else get_user(name)
            audit.record_command("export_messages", whose=user or "")
            write_lines(export_lines(user))
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"the export is not whole: {error.strerror}") from error
        except Error as error:
            raise CommandError(
                f"the export is not whole: the database failed ({describe_db_error(error)})"
            ) from error


def get_user(name: str) -> Any:
    """Raises CommandError if there is no such user."""
    user = find_user(name)
    if user is None:
        raise CommandError(f"No user is called {name!r}")
    return user


def write_lines(lines: Iterable[bytes]) -> None:
    """Write to standard output. Raises OSError if not all of it could be written.

    With a buffer of its own: under PYTHONUNBUFFERED Python has none, and a write that ends half-way
    on a full disk would be no error.
    """
    with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.writelines(lines)
