"""clear_expired: delete what has served its time."""

import json
from argparse import ArgumentParser
from typing import Any

from django.core.management.base import BaseCommand

from chat import keys
from chat.throttle import clear_windows


class Command(BaseCommand):
    """Parse, call, say."""

    help = "Delete idempotency keys older than 24 hours and counts of past messages. Safe at any time; run it daily."

    def add_arguments(self, parser: ArgumentParser) -> None:
        """For scripts."""
        parser.add_argument("--json", action="store_true", help="one JSON object instead of a sentence")

    def handle(self, *, json: bool, **options: Any) -> str:
        """What was deleted."""
        counts = {"idempotency_keys": keys.clear(), "rate_windows": clear_windows()}
        return dumps(counts) if json else "Deleted " + ", ".join(f"{n} {table}" for table, n in counts.items())


dumps = json.dumps
