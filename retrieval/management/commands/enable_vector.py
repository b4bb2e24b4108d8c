"""Create the PostgreSQL extension vector (pgvector) in this database if it is missing.

Safe to run again, and under traffic.

  manage.py enable_vector --check      does it have to be created? Changes nothing
  manage.py enable_vector

Locks: none on any table.
Exit code: 0 it is enabled; 1 it cannot be created: the message says what to run, and as whom. With
--check: 1 it is missing.
"""

from argparse import ArgumentParser
from typing import Any

from django.db import connection

from retrieval.management.operator_command import OperatorCommand
from retrieval.schema import extension


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--check", action="store_true", help="change nothing; exit code 1 if it is missing"
        )

    def run(self, **options: Any) -> None:
        version = extension.check(connection) if options["check"] else extension.enable(connection)
        self.report(options, {"version": version}, f"pgvector {version} is enabled")
