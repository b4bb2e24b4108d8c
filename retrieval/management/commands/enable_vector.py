"""Make the extension vector, or say what it takes. Contract section 5."""

from argparse import ArgumentParser
from typing import Any

from django.db import connection

from retrieval.management.operator_command import OperatorCommand
from retrieval.schema import extension

HELP = """\
Make the PostgreSQL extension vector (pgvector) in this database. Safe to run again and under traffic.

  manage.py enable_vector --check      look: does it have to be made?
  manage.py enable_vector

Locks: none on any table. Exit code: 1 where it cannot be made, with what to run and as whom; with --check, where it
is missing."""


class Command(OperatorCommand):
    """Parse, make, say. Idempotent; no restart."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """--check."""
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit with 1 where it is missing"
        )

    def run(self, **options: Any) -> None:
        """Print the version."""
        version = extension.check(connection) if options["check"] else extension.enable(connection)
        if options["json"]:
            self.write_json({"version": version})
        else:
            self.stdout.write(f"pgvector {version} is enabled")
