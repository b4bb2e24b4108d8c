"""Import messages: from JSON Lines, or from the export of ChatGPT or Claude.

JSON Lines have one message a line (here in two):

  {"user": "alice", "conversation": "Trip", "role": "user", "content": "Hi",
   "created_at": "2024-05-03T10:00:00Z"}

"kind" may be "chat" (the default) or "passage"; "role" is "user" or "assistant". If a line is bad,
nothing of the file is imported, unless --skip-bad. For example:

  manage.py import_messages history.jsonl --create-users

An export is the archive that the product sends, or the conversations.json in it; its messages
become those of one user. --dry-run says how many, and what embedding them costs. For example:

  manage.py import_messages --format chatgpt --user alice --dry-run export.zip

Messages that are stored already are not added again. Safe under traffic. Locks: only the rows that
it adds. All of the file is one transaction, for which migrate and index builds wait.
"""

import sys
from argparse import ArgumentParser
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, BinaryIO

from django.core.management.base import CommandError
from django.db import Error
from psycopg import errors

from chat.auth.usernames import find_user
from chat.management.import_reports import imported_in_words, preview_in_words
from chat.transfer import formats
from chat.transfer.imported_items import Record
from chat.transfer.importing import import_lines
from chat.transfer.json_lines import read
from chat.transfer.refusals import ImportRefusedError
from retrieval import audit
from retrieval.db_errors import describe_db_error
from retrieval.embeddings.cost import cost_usd
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import NOT_MIGRATED, OperatorCommand
from retrieval.management.progress import Progress

NOTHING = "nothing was imported"


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", help="the file, or - for standard input")
        parser.add_argument(
            "--format", choices=formats.FORMATS, default=formats.LINES, help="default: jsonl"
        )
        parser.add_argument(
            "--user", metavar="NAME", help="whose messages they become; not for jsonl"
        )
        parser.add_argument(
            "--dry-run", action="store_true", help="say what would be imported; not for jsonl"
        )
        parser.add_argument(
            "--create-users", action="store_true", help="create missing users; for jsonl"
        )
        parser.add_argument(
            "--skip-bad", action="store_true", help="leave out bad lines, say how many; for jsonl"
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: nothing was imported, and why."""
        refuse_options(options)
        with nothing_on_failure(options["file"]), opened(options["file"]) as file:
            if options["format"] == formats.LINES:
                self._import_lines(file, options)
            else:
                self._import_export(file, options)

    def _import_lines(self, file: BinaryIO, options: dict[str, Any]) -> None:
        audit.record_command("import_messages")
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
        counts = asdict(imported)
        del counts["reasons"], counts["left_out"]
        self.report(options, counts, imported_in_words(imported))

    def _import_export(self, file: BinaryIO, options: dict[str, Any]) -> None:
        user = find_user(options["user"])
        if user is None:
            raise ImportRefusedError(f"no user is called {options['user']!r}")
        read_so_far = formats.Progress()
        if options["dry_run"]:
            preview = formats.preview_export(file, options["format"], user, progress=read_so_far)
            counts = asdict(preview) | {"cost_usd": cost_usd(preview.tokens)}
            self.report(options, counts, preview_in_words(preview))
            return
        audit.record_command("import_messages", whose=user)
        record = Record(user.pk, options["format"])
        imported = formats.import_file(file, record, user, progress=read_so_far)
        numbers = {"conversations": imported.conversations, "messages": imported.messages}
        counts = {"id": record.import_id} | numbers | {"left_out": dict(+imported.left_out)}
        self.report(options, counts, imported_in_words(imported, record.import_id))


def refuse_options(options: dict[str, Any]) -> None:
    """Raises CommandError with exit code 2: options that do not go together."""
    is_lines = options["format"] == formats.LINES
    names = ("user", "dry_run") if is_lines else ("create_users", "skip_bad")
    wrong = [f"--{name.replace('_', '-')}" for name in names if options[name]]
    if wrong:
        raise CommandError(f"{wrong[0]} is not for --format {options['format']}", returncode=2)
    if not is_lines and not options["user"]:
        raise CommandError(f"--format {options['format']} needs --user NAME", returncode=2)


@contextmanager
def opened(name: str) -> Iterator[BinaryIO]:
    """The file, or standard input for ``-``. A signal ends the block, exit code 130 or 143."""
    with (
        cancel_on_signal(raise_keyboard_interrupt, message=f"interrupted; {NOTHING}"),
        nullcontext(sys.stdin.buffer) if name == "-" else Path(name).open("rb") as file,
    ):
        yield file


@contextmanager
def nothing_on_failure(name: str) -> Iterator[None]:
    """Failures as CommandError: an import is all or nothing."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise CommandError(f"{name}: {error.strerror}; {NOTHING}") from error
    except ImportRefusedError as error:
        raise CommandError(f"{error}; {NOTHING}") from error
    except Error as error:
        if isinstance(error.__cause__, errors.UndefinedTable):
            raise CommandError(NOT_MIGRATED) from error
        reason = describe_db_error(error)
        raise CommandError(f"the database failed ({reason}); {NOTHING}") from error


def lines_of(file: BinaryIO, progress: Progress) -> Iterator[bytes]:
    """The file's lines; says when all are read, if they were so many that progress was shown."""
    yield from read(file)
    if progress.shown:
        progress.write("all lines read, now the database adds them")
