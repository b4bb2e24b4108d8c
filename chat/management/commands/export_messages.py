"""export_messages [--user NAME]: messages as JSON Lines on standard output, as import_messages reads them."""

import os
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterable
from typing import Any

from django.contrib.auth import get_user_model
from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.db import Error

from chat.transfer import in_one_line
from chat.transfer.exporting import export_lines

HELP = """\
Export messages as JSON Lines to standard output; import_messages reads them. Safe under traffic. For example:

  manage.py export_messages --user alice > alice.jsonl"""


class Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Help in lines as they are written, so that an example can be pasted."""


class Command(BaseCommand):
    """Parse, call, say."""

    help = HELP

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With the help's own lines."""
        return super().create_parser(prog_name, subcommand, formatter_class=Formatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Whose messages."""
        parser.add_argument(
            "--user", metavar="NAME", help="only this user's messages; without it everybody's"
        )

    def handle(self, *, user: str | None, **options: Any) -> None:
        """The lines. CommandError: there is no such user, or the export is not whole, and why."""
        try:
            write(export_lines(None if user is None else find(user)))
        except BrokenPipeError:
            raise SystemExit(
                1
            ) from None  # whoever read, such as head, has had enough: nothing to say
        except OSError as error:
            raise CommandError(f"the export is not whole: {error.strerror}") from error
        except CommandError:
            raise
        except Error as error:
            raise CommandError(
                f"the export is not whole: the database failed ({in_one_line(error)})"
            ) from error


def find(name: str) -> Any:
    """The user. CommandError: there is none."""
    user = get_user_model()._default_manager.filter(username=name).first()
    if user is None:
        raise CommandError(f"No user is called {name!r}")
    return user


def write(lines: Iterable[bytes]) -> None:
    """To standard output, as bytes. OSError: they cannot all be written.

    With a buffer of its own: with PYTHONUNBUFFERED, Python's has none, and half a line on a full disk is no error.
    """
    with os.fdopen(sys.stdout.fileno(), "wb", closefd=False) as out:
        out.writelines(lines)
