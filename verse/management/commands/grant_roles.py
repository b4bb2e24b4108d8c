"""Grant two database roles what they need: for the servers, and for memory's commands.

Run it as the role that migrates, which owns the tables. It creates no role: if one is missing, it
prints how to create it.

  manage.py grant_roles --web verse_web --backfill verse_backfill --print     look
  manage.py grant_roles --web verse_web --backfill verse_backfill

Idempotent: run it again after each migrate. Until then default privileges give the servers the new
tables; the backfill's role has no rights on them yet.

Locks: none on any table; one transaction.
Exit code: 0 granted or printed; 1 a role is missing, or may do everything without a grant.
"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connection, transaction
from psycopg import sql

from retrieval.management.operator_command import OperatorCommand
from verse import grants


class Command(OperatorCommand):
    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--web", required=True, metavar="ROLE", help="the servers' role")
        parser.add_argument(
            "--backfill", required=True, metavar="ROLE", help="the role of memory's commands"
        )
        parser.add_argument(
            "--print",
            action="store_true",
            help="print the statements, for psql, and change nothing",
        )

    def run(self, **options: Any) -> None:
        web, backfill = options["web"], options["backfill"]
        if web == backfill:
            raise CommandError("--web and --backfill must be two roles")
        try:
            schema = grants.find_schema()
            grants.refuse_powerful(schema.owner, [web, backfill])
        except grants.RolesError as error:
            raise CommandError(str(error)) from error
        creates = _texts(grants.create_missing([web, backfill]))
        statements = list(grants.grant_statements(schema, web=web, backfill=backfill))
        if options["print"]:
            self._print(creates, _texts(statements), options)
            return
        if creates:
            raise CommandError(
                f"a role is missing: let an administrator run {' '.join(creates)} "
                "Then run this again"
            )
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in statements:
                cursor.execute(statement)
        self.report(
            options,
            {"web": web, "backfill": backfill, "statements": len(statements)},
            f"Granted to {web} and {backfill}: {len(statements)} statements. "
            "Run this again after each migrate",
        )

    def _print(self, creates: list[str], statements: list[str], options: dict[str, Any]) -> None:
        self.report(
            options,
            {"missing": creates, "statements": statements},
            *(f"-- as an administrator: {create}" for create in creates),
            "BEGIN;",
            *(f"{statement};" for statement in statements),
            "COMMIT;",
        )


def _texts(statements: list[sql.Composed]) -> list[str]:
    return [statement.as_string() for statement in statements]
