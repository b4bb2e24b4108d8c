"""clear_expired: delete what has served its time."""

from typing import Any

from chat.answers import idempotency
from chat.rate_limit import delete_expired_windows
from retrieval.management.operator_command import OperatorCommand

HELP = """\
Delete idempotency keys older than 24 hours and counts of past messages. Safe at any time; run it daily:

  manage.py clear_expired

Locks: the rows that go."""


class Command(OperatorCommand):
    """Delete, say."""

    help = HELP

    def run(self, **options: Any) -> None:
        """What was deleted."""
        counts = {
            "idempotency_keys": idempotency.delete_expired_keys(),
            "rate_windows": delete_expired_windows(),
        }
        if options["json"]:
            self.write_json(counts)
        else:
            self.stdout.write(
                "Deleted " + ", ".join(f"{count} {table}" for table, count in counts.items())
            )
