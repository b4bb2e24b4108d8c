"""Django's migrate, one at a time: a second one waits for the first."""

from typing import Any

from django.core.management.base import CommandError
from django.core.management.commands import migrate
from django.db import Error, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.migrations.exceptions import MigrationSchemaMissing

from retrieval.db_errors import sqlstate
from retrieval.management.cancellation import cancel_on_signal, raise_keyboard_interrupt
from retrieval.management.operator_command import summarise_db_error
from retrieval.schema.extension import INSUFFICIENT_PRIVILEGE, VectorUnavailable
from retrieval.schema.locks import notify_operator, wait_for_advisory_lock
from retrieval.schema.ownership import explain_refusal
from retrieval.schema.waits import report_waits

INTERRUPTED = "interrupted; run migrate again, it goes on with the step that was interrupted"


class Command(migrate.Command):
    """Django's command inside an advisory lock; says whom it waits for."""

    def handle(self, *args: Any, **options: Any) -> None:
        """Raises CommandError: no database, no extension, or a role that may not migrate.

        SIGINT and SIGTERM interrupt an index build, which removes what it left; exit code 130, 143.
        """
        connection = connections[options["database"]]
        try:
            connection.ensure_connection()
        except Error as error:
            raise CommandError(summarise_db_error(error)) from error
        with (
            cancel_on_signal(raise_keyboard_interrupt, message=INTERRUPTED),
            wait_for_advisory_lock(connection),
            report_waits(connection, notify_operator),
        ):
            try:
                super().handle(*args, **options)
            except VectorUnavailable as error:
                raise CommandError(str(error)) from error
            except Error as error:
                raise CommandError(self.explain(connection, error)) from error

    def explain(self, connection: BaseDatabaseWrapper, error: Error) -> str:
        """Why this role was refused. Raises the error itself if it was no refusal."""
        is_refusal = sqlstate(error) == INSUFFICIENT_PRIVILEGE
        if not is_refusal and not isinstance(error, MigrationSchemaMissing):
            raise error
        return explain_refusal(connection) or summarise_db_error(error)
