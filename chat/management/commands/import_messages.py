"""import_messages FILE: messages from JSON Lines, each once however often it is run."""

import json
import sys
from argparse import ArgumentParser, RawDescriptionHelpFormatter
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import BaseCommand, CommandError, DjangoHelpFormatter
from django.db import Error

from chat.transfer import in_one_line
from chat.transfer.importing import Imported, ImportRefusedError, import_lines
from chat.transfer.lines import read

TOLD_EVERY = 100_000  # lines
HELP = """\
Import messages from JSON Lines, one message a line, such as:

  {"user": "alice", "conversation": "Trip", "role": "user", "content": "Hi", "created_at": "2024-05-03T10:00:00Z"}

"kind" may be "chat" (as without it) or "passage"; "role" is "user" or "assistant". What is there already is not
added again. A bad line keeps nothing of the file, unless --skip-bad. Safe under traffic. For example:

  manage.py import_messages history.jsonl --create-users"""


class Formatter(DjangoHelpFormatter, RawDescriptionHelpFormatter):
    """Help in lines as they are written, so that an example can be pasted."""


class Command(BaseCommand):
    """Parse, call, say."""

    help = HELP
    told = False  # whether the file is so long that its progress was told

    def create_parser(self, prog_name: str, subcommand: str, **kwargs: Any) -> Any:
        """With the help's own lines."""
        return super().create_parser(prog_name, subcommand, formatter_class=Formatter, **kwargs)

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The file, and what to do about what is wrong in it."""
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument(
            "--create-users", action="store_true", help="make missing users, without a password"
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="leave out bad lines, and say how many"
        )
        parser.add_argument(
            "--json", action="store_true", help="one JSON object instead of a sentence"
        )

    def handle(
        self, *, file: str, create_users: bool, skip_bad: bool, json: bool, **options: Any
    ) -> str:
        """What was imported. CommandError: nothing was, and why."""
        try:
            with nullcontext(sys.stdin.buffer) if file == "-" else Path(file).open("rb") as opened:
                done = self._import(opened, create_users=create_users, skip_bad=skip_bad)
        except OSError as error:
            raise CommandError(f"{file}: {error.strerror}; nothing was imported") from error
        except ImportRefusedError as error:
            raise CommandError(f"{error}; nothing was imported") from error
        except KeyboardInterrupt:
            raise CommandError("interrupted; nothing was imported", returncode=130) from None
        except CommandError:
            raise
        except Error as error:
            raise CommandError(
                f"the database failed ({in_one_line(error)}); nothing was imported"
            ) from error
        return as_json(done) if json else say(done)

    def _import(self, file: BinaryIO, *, create_users: bool, skip_bad: bool) -> Imported:
        done = import_lines(
            self._lines(file), create_users=create_users, skip_bad=skip_bad, progress=self._tell
        )
        for reason in done.reasons:
            self.stderr.write(reason, str)
        if done.skipped > len(done.reasons):
            self.stderr.write(f"and {done.skipped - len(done.reasons):,} more", str)
        return done

    def _lines(self, file: BinaryIO) -> Iterator[bytes]:
        yield from read(file)
        if self.told:
            self.stderr.write("all lines read, now the database adds them", str)

    def _tell(self, lines: int) -> None:
        if lines % TOLD_EVERY == 0:
            self.told = True
            self.stderr.write(f"{lines:,} lines read", str)


def say(done: Imported) -> str:
    """In a sentence, and what comes next."""
    skipped = f"; {count(done.skipped, 'bad line')} skipped" if done.skipped else ""
    return (
        f"Imported {count(done.messages, 'message')} in {count(done.conversations, 'conversation')} of"
        f" {count(done.users, 'user')}; {done.already:,} were there already{skipped}\n"
        "They are found by words at once; backfill_embeddings embeds them."
    )


def as_json(done: Imported) -> str:
    """The numbers, for scripts."""
    return json.dumps({name: value for name, value in asdict(done).items() if name != "reasons"})


def count(number: int, noun: str) -> str:
    """``1 user``, ``1,234 users``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
