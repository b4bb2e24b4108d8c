"""Make the extension vector, or say what it takes. Contract section 5."""

import json
from typing import Any

from django.core.management import BaseCommand
from django.core.management.base import CommandParser
from django.db import connection

from retrieval import extension


class Command(BaseCommand):
    """Make the extension where it is missing. Idempotent; no restart, no lock on any table."""

    help = (
        "Make the PostgreSQL extension vector (pgvector) in this database. Safe to run again and under traffic. "
        "Where it cannot be made, says what to run and as whom, and exits with 1."
    )
    requires_system_checks = ()

    def add_arguments(self, parser: CommandParser) -> None:
        """--check, --json."""
        parser.add_argument("--check", action="store_true", help="change nothing; exit with 1 where it is missing")
        parser.add_argument("--json", action="store_true", help='print {"version": "..."}')

    def handle(self, *args: Any, check: bool, json: bool, **options: Any) -> None:
        """Print the version."""
        version = extension.check(connection) if check else extension.enable(connection)
        self.stdout.write(as_json(version) if json else f"pgvector {version} is enabled")


def as_json(version: str) -> str:
    """For scripts."""
    return json.dumps({"version": version})
