"""Import messages from JSON Lines, one message a line (here in two):

  {"user": "alice", "conversation": "Trip", "role": "user", "content": "Hi",
   "created_at": "2024-05-03T10:00:00Z"}

"kind" may be "chat" (the default) or "passage"; "role" is "user" or "assistant". Messages that are
stored already are not added again. If a line is bad, nothing of the file is imported, unless
--skip-bad. Safe under traffic. For example:

  manage.py import_messages history.jsonl --create-users

Locks: only the rows that it adds. All of the file is one transaction, for which migrate and index
builds wait.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError
from django.db import Error

from chat.transfer.importing import Imported, ImportRefusedError, import_lines
from chat.transfer.json_lines import read
from retrieval import audit
from retrieval.db_errors import describe_db_error
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import OperatorCommand
from retrieval.management.progress import Progress


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument(
            "--create-users", action="store_true", help="create missing users, without a password"
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="leave out bad lines, and say how many"
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: nothing was imported, and why."""
        name = options["file"]
        try:
            with (
                cancel_on_signal(
                    raise_keyboard_interrupt, message="interrupted; nothing was imported"
                ),
                nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file,
            ):
                audit.record_command("import_messages")
                imported = self._import(file, options)
        except BrokenPipeError:
            raise
        except OSError as error:
            raise CommandError(f"{name}: {error.strerror}; nothing was imported") from error
        except ImportRefusedError as error:
            raise CommandError(f"{error}; nothing was imported") from error
        except Error as error:
            raise CommandError(
                f"the database failed ({describe_db_error(error)}); nothing was imported"
            ) from error
        counts = asdict(imported)
        del counts["reasons"]
        self.report(options, counts, in_words(imported))

    def _import(self, file: BinaryIO, options: dict[str, Any]) -> Imported:
        with self.progress(on_stderr=True) as progress:

            def show(lines: int) -> None:
                text = f"{lines:,} lines read"
                progress.update("Reading", lines, None, unit="lines", line=text)

            imported = import_lines(
                lines_of(file, progress),
                create_users=options["create_users"],
                skip_bad=options["skip_bad"],
                progress=show,
            )
        for reason in imported.reasons:
            self.stderr.write(reason, str)
        if imported.skipped > len(imported.reasons):
            self.stderr.write(f"and {imported.skipped - len(imported.reasons):,} more", str)
        return imported


def lines_of(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    """The file's lines; says when all are read, if they were so many that progress was shown."""
    yield from read(file)
    if progress.shown:
        progress.write("all lines read, now the database adds them")


def in_words(imported: Imported) -> str:
    skipped = f"; {count(imported.skipped, 'bad line')} skipped" if imported.skipped else ""
    return (
        f"Imported {count(imported.messages, 'message')}"
        f" in {count(imported.conversations, 'conversation')} of {count(imported.users, 'user')};"
        f" {imported.already:,} were there already{skipped}\n"
        "They are found by words at once; backfill_embeddings embeds them."
    )


def count(number: int, noun: str) -> str:
    """``1 user``, ``1,234 users``."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"
