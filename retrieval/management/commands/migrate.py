"""Django's migrate, one at a time: a second one waits for the first instead of colliding with it."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import Error, connections

from retrieval.locks import one_at_a_time
from retrieval.management.command import in_one_line


class Command(migrate.Command):
    """Django's, behind a lock."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Wait for the turn, then migrate. CommandError: the database cannot be reached."""
        connection = connections[options["database"]]
        try:
            connection.ensure_connection()
        except Error as error:
            raise CommandError(in_one_line(error)) from error
        with one_at_a_time(connection):
            super().handle(*args, **options)
