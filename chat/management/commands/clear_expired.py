"""Delete idempotency keys older than 24 hours and expired counts of the rate limit.

Safe at any time; run it daily:

  manage.py clear_expired

Locks: the deleted rows.
"""

from typing import Any

from chat.answers import idempotency
from chat.rate_limit import delete_expired_windows
from retrieval.management.operator_command import OperatorCommand


class Command(OperatorCommand):
    def run(self, **options: Any) -> None:
        counts = {
            "idempotency_keys": idempotency.delete_expired_keys(),
            "rate_windows": delete_expired_windows(),
        }
        deleted = ", ".join(f"{count} {table}" for table, count in counts.items())
        self.report(options, counts, f"Deleted {deleted}")
