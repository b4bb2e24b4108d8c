"""Django's migrate, one at a time: a second one waits for the first."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import Error, connections

from retrieval.management.operator_command import summarise_db_error
from retrieval.schema.extension import VectorUnavailable
from retrieval.schema.locks import wait_for_advisory_lock


class Command(migrate.Command):
    """Django's command inside an advisory lock."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError: the database cannot be reached, or cannot have the extension."""
        connection = connections[options["database"]]
        try:
            connection.ensure_connection()
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error
        with wait_for_advisory_lock(connection):
            try:
                super().handle(*args, **options)
            except VectorUnavailable as error:
                raise CommandError(str(error)) from error
