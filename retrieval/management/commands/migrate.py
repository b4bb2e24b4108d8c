"""Django's migrate, one at a time: a second one waits for the first instead of colliding with it."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import Error, connections

from retrieval.management.operator_command import summarise_db_error
from retrieval.schema.locks import wait_for_advisory_lock


class Command(migrate.Command):
    """Django's, behind a lock."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait for the turn, then migrate. CommandError: the database cannot be reached."""
        connection = connections[options["database"]]
        try:
            connection.ensure_connection()
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error
        with wait_for_advisory_lock(connection):
            super().handle(*args, **options)
