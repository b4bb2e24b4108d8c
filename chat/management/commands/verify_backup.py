"""Restore a backup into a database of its own, check what is in it, and drop it.

The backup is a file of pg_dump -Fc. Compares its rows with those of the live database, looks for
both vector indexes, recalls the newest message, and looks for users who erased their data since.

  manage.py verify_backup verse-2026-11-29.dump
  manage.py verify_backup FILE --into postgresql://verse@other-server/postgres

Locks: none in the live database. The restore builds all indexes: processor time and disk of the
server that it goes to, --into another one spares the live one. The role there must be allowed to
create databases. Exit code: 0 it can be restored; 1 it cannot, or lacks something; 130, 143
interrupted. The database is dropped in each case.
"""

from argparse import ArgumentParser
from pathlib import Path
from typing import Any

import psycopg
from django.core.management.base import CommandError
from psycopg.conninfo import conninfo_to_dict

from chat.backup import contents, scratch
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import OperatorCommand

INTERRUPTED = "interrupted; the restored database is dropped"
RESTORABLE = "the backup can be restored"
ERASE_AGAIN = (
    "erased since: {names}. After a restore of this backup erase their data again:"
    " manage.py erase_data NAME; --allow-erased accepts it as it is"
)
BAD_URL = "--into is no database URL such as postgresql://user:password@host:5432/name"


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("file", metavar="FILE", type=Path, help="what pg_dump -Fc has written")
        parser.add_argument(
            "--into",
            metavar="URL",
            help="restore on this server; the URL's own database is not touched",
        )
        parser.add_argument(
            "--allow-erased", action="store_true", help="users who erased their data since are fine"
        )

    def run(self, **options: Any) -> None:
        """Raises CommandError: the backup cannot be restored, or lacks something."""
        backup: Path = options["file"]
        live, erased = contents.read_contents(), contents.erasures()
        server = _parse(options["into"]) if options["into"] else scratch.live_server()
        try:
            with (
                cancel_on_signal(raise_keyboard_interrupt, message=INTERRUPTED),
                scratch.scratch_database(server) as database,
            ):
                scratch.restore(backup, database)
                with scratch.connected_to(database):
                    restored = contents.read_contents()
                    faults = contents.find_faults(restored, live)
                    known = [] if faults else contents.still_known(erased)
                    recalled = "" if faults else contents.recall_newest()
        except scratch.BackupRefused as refused:
            raise CommandError(str(refused)) from refused
        except psycopg.Error as error:
            reason = str(error).strip().partition("\n")[0]
            raise CommandError(f"no database to restore into: {reason}") from error
        if faults:
            raise CommandError(f"{backup}: {'; '.join(faults)}")
        as_json = restored.as_json() | {
            "live": live.as_json(),
            "recall": recalled,
            "erased_since": known,
        }
        lines = _lines(restored, live, recalled)
        is_bad = known and not options["allow_erased"]
        self.report(options, as_json, *(lines if is_bad else [*lines, RESTORABLE]))
        if is_bad:
            raise CommandError(ERASE_AGAIN.format(names=", ".join(known)))


def _parse(url: str) -> dict[str, Any]:
    """Raises CommandError, without the URL: libpq's own message quotes it, and so the password."""
    try:
        return conninfo_to_dict(url)
    except psycopg.Error:
        raise CommandError(BAD_URL) from None


def _lines(restored: contents.Contents, live: contents.Contents, recalled: str) -> list[str]:
    width = max(map(len, restored.rows))
    rows = [
        f"  {table:{width}}  {count:>12,}  live {live.rows.get(table, 0):>12,}"
        for table, count in restored.rows.items()
    ]
    indexes = ", ".join(
        f"{name} {'valid' if is_valid else 'missing'}"
        for name, is_valid in restored.indexes.items()
    )
    return [
        f"migration chat {restored.migration}, live {live.migration}",
        *rows,
        f"indexes: {indexes}",
        f"recall of the newest message: {recalled}",
    ]
