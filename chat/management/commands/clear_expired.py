"""clear_expired: delete what has served its time."""

from typing import Any

from chat import keys
from chat.throttle import clear_windows
from retrieval.management.command import OperatorCommand

HELP = """\
Delete idempotency keys older than 24 hours and counts of past messages. Safe at any time; run it daily:

  manage.py clear_expired

Locks: the rows that go."""


class Command(OperatorCommand):
    """Delete, say."""

    help = HELP

    def run(self, **options: Any) -> None:
        """What was deleted."""
        counts = {"idempotency_keys": keys.clear(), "rate_windows": clear_windows()}
        if options["json"]:
            self.write_json(counts)
        else:
            self.stdout.write("Deleted " + ", ".join(f"{count} {table}" for table, count in counts.items()))
