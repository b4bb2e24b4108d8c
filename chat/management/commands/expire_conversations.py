"""Delete conversations that are older than RETENTION_DAYS, with all that belongs to them.

A conversation is as old as its newest message, its last turn, new title or switch of memory. Those
that users keep, and those with a running answer, stay. Look first:

  manage.py expire_conversations --dry-run

From then on the servers run it once an hour by themselves. Stopped half-way, it goes on when it is
run again. Backups keep what it deletes: docs/howto/delete-old-conversations.md.

Locks: at most 500 conversations and their messages, for 0.3 s at most.
"""

from argparse import ArgumentParser
from dataclasses import asdict
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError

from chat.retention import expired, sweep
from chat.retention.expired import Counts
from retrieval import audit
from retrieval.management.cancellation import cancel_on_signal
from retrieval.management.operator_command import OperatorCommand

STOPPED = "stopped; run it again, it goes on from here"


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--dry-run", action="store_true", help="count, and delete nothing")

    def run(self, **options: Any) -> None:
        """Raises CommandError: RETENTION_DAYS is not set."""
        days = settings.RETENTION_DAYS
        if days is None:
            raise CommandError("RETENTION_DAYS is not set: conversations are kept for ever")
        sweep.begin()
        if options["dry_run"]:
            counts = expired.count(days=days)
            line = f"Would delete {_shown(counts)}"
        else:
            audit.record_command("expire_conversations")
            counts = self._delete(days, is_json=options["json"])
            line = f"Deleted {_shown(counts)}"
        self.report(options, asdict(counts), line)

    def _delete(self, days: int, *, is_json: bool) -> Counts:
        stop: list[bool] = []
        counts = Counts()
        with (
            cancel_on_signal(lambda: stop.append(True), message=STOPPED),
            self.progress(on_stderr=is_json) as progress,
        ):
            for _ in expired.delete(counts, days=days):
                progress.update(
                    "expired",
                    counts.conversations,
                    None,
                    unit="conversations",
                    line=f"{_shown(counts)} so far",
                )
                if stop:
                    break
        return counts


def _shown(counts: Counts) -> str:
    return f"{counts.conversations:,} conversations with {counts.messages:,} messages"
