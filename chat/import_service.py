"""What users can do with imports: begin one, look at it, remove what it added."""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from typing import BinaryIO

from django.contrib.auth.models import User
from django.db import IntegrityError, ProgrammingError, connection, transaction
from django.db.models.functions import Now
from psycopg import errors as database_errors
from rest_framework.exceptions import NotFound

from chat.answers import turns
from chat.errors import DatabaseUnavailable, InProgress
from chat.models import KINDS
from chat.models.imports import ImportStatus, MemoryImport
from chat.transfer import background, imported_items
from chat.transfer.imported_items import Record
from retrieval import audit
from retrieval.replica.user_writes import recorded

OLDER_SCHEMA = "The database is older than imports; they work after manage.py migrate."
RUNNING = "An import of yours is running; wait for its end."


class ImportService:
    """One user's imports."""

    def __init__(self, user: User) -> None:
        self.user = user

    def start(self, file: BinaryIO, format_name: str) -> MemoryImport:
        """Begin to import the file, which is closed at the end, in the background.

        Raises InProgress: one at a time for each user. Raises DatabaseUnavailable.
        """
        self.end_abandoned()
        row = self._add_row(format_name)
        background.start(background.Job(Record(self.user.pk, format_name, row.pk), self.user, file))
        return row

    def end_abandoned(self) -> None:
        """Make imports ``failed`` that have lost their process. Raises DatabaseUnavailable."""
        too_old = Now() - timedelta(seconds=background.ABANDONED_S)
        running = MemoryImport.objects.of(self.user).filter(status=ImportStatus.RUNNING)
        with _tables():
            running.filter(alive_at__lt=too_old).update(
                status=ImportStatus.FAILED, detail=background.STOPPED, conversations=0, messages=0
            )

    def get(self, import_id: int) -> MemoryImport:
        """Raises NotFound, for another user's too; DatabaseUnavailable."""
        self.end_abandoned()
        row: MemoryImport | None = MemoryImport.objects.of(self.user).filter(pk=import_id).first()
        if row is None:
            raise NotFound
        return row

    def remove(self, import_id: int) -> None:
        """Delete the messages that the import added, and the conversations that are then empty.

        What was said in them since stays. Raises NotFound; InProgress: it still runs. Locks: the
        user's row, as a turn does, and what is deleted.
        """
        row = self.get(import_id)
        if row.status == ImportStatus.RUNNING:
            raise InProgress(RUNNING)
        user_id = self.user.pk
        with transaction.atomic(), recorded(user_id), connection.cursor() as cursor:
            turns.lock_user(user_id)
            audit.record(self.user, f"import {import_id} removed", whose=self.user)
            for kind, model in KINDS.items():
                ids = imported_items.delete_messages(cursor, import_id, kind)
                empty = imported_items.empty_conversations(
                    cursor, import_id, kind, user_id=user_id, ids=ids
                )
                conversations = model._meta.get_field("conversation").related_model
                conversations._default_manager.filter(pk__in=empty).delete()
            MemoryImport.objects.filter(pk=import_id).delete()

    def _add_row(self, format_name: str) -> MemoryImport:
        row = MemoryImport(user=self.user, format=format_name, status=ImportStatus.RUNNING)
        try:
            with transaction.atomic():
                audit.record(self.user, f"import of {format_name}", whose=self.user)
                row.save(force_insert=True)
        except IntegrityError as error:  # the index memory_imports_running
            raise InProgress(RUNNING) from error
        return row


@contextmanager
def _tables() -> Iterator[None]:
    """Raises DatabaseUnavailable on a schema from before chat 0014_imports."""
    try:
        yield
    except ProgrammingError as error:
        if not isinstance(error.__cause__, database_errors.UndefinedTable):
            raise
        raise DatabaseUnavailable(OLDER_SCHEMA) from error
