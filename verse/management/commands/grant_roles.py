"""Grant the web's and the backfill's roles what they need, and nothing else. docs/roles.md"""

from argparse import ArgumentParser
from typing import Any

from django.core.management.base import CommandError
from django.db import connection, transaction

from retrieval.management.operator_command import OperatorCommand
from verse import roles

HELP = """\
Grant two roles of the database what they need: one for the servers, one for backfill_embeddings and its like.
Run as the role that migrates, which owns the tables. Makes no role: where one is missing, it says how.

  manage.py grant_roles --web verse_web --backfill verse_backfill --print     look
  manage.py grant_roles --web verse_web --backfill verse_backfill

Idempotent: run it again after each migrate. Until then servers go on with the new tables, since default privileges
give them these; the backfill's role has nothing on them yet.

Locks: none on any table; one transaction.
Exit code: 0 granted or printed; 1 a role is missing, or may do everything anyway."""


class Command(OperatorCommand):
    """Look, refuse, grant."""

    help = HELP

    def add_arguments(self, parser: ArgumentParser) -> None:
        """The two roles."""
        parser.add_argument("--web", required=True, metavar="ROLE", help="the servers' role")
        parser.add_argument(
            "--backfill", required=True, metavar="ROLE", help="the role of the memory's commands"
        )
        parser.add_argument(
            "--print",
            action="store_true",
            help="print the statements, for psql, and change nothing",
        )

    def run(self, **options: Any) -> None:
        """In one transaction, or as text."""
        both = [options["web"], options["backfill"]]
        if both[0] == both[1]:
            raise CommandError("--web and --backfill must be two roles")
        try:
            where = roles.place(connection)
            roles.refuse_powerful(connection, where.owner, both)
        except roles.RolesError as error:
            raise CommandError(str(error)) from error
        missing, made = roles.missing(connection, both), roles.statements(connection, where, *both)
        if options["print"]:
            self._print(missing, made, as_json=options["json"])
            return
        if missing:
            raise CommandError(
                f"a role is missing: let an administrator run {' '.join(missing)} Then run this again"
            )
        with transaction.atomic(), connection.cursor() as cursor:
            for statement in made:
                cursor.execute(statement)
        self._say(made, both, as_json=options["json"])

    def _print(self, missing: list[str], made: list[str], *, as_json: bool) -> None:
        if as_json:
            self.write_json({"missing": missing, "statements": made})
            return
        lines = [
            *(f"-- as an administrator: {one}" for one in missing),
            "BEGIN;",
            *(f"{one};" for one in made),
        ]
        self.stdout.write("\n".join([*lines, "COMMIT;"]))

    def _say(self, made: list[str], both: list[str], *, as_json: bool) -> None:
        if as_json:
            self.write_json({"web": both[0], "backfill": both[1], "statements": len(made)})
        else:
            self.stdout.write(
                f"Granted to {both[0]} and {both[1]}: {len(made)} statements. Again after each migrate"
            )
