"""Create the PostgreSQL extension vector (pgvector) in this database if it is missing.

Safe to run again, and under traffic.

  manage.py enable_vector --check      does it have to be created, by whom? Changes nothing
  manage.py enable_vector

Locks: none on any table.
Exit code: 0 it is enabled, and this role may use it; 1 it cannot be created or used: the message
says what to run, and as whom; with --json too: run_as, statement. With --check: 1 it is missing.
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
        work = extension.check if options["check"] else extension.enable
        try:
            version = work(connection)
        except extension.VectorUnavailable as error:
            if options["json"]:
                self.write_json(
                    {
                        "version": None,
                        "problem": str(error),
                        "run_as": error.run_as,
                        "statement": error.statement,
                    }
                )
            raise
        self.report(options, {"version": version}, f"pgvector {version} is enabled")
