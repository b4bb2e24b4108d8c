"""What users import, and what came with each import. The tables come with chat 0014_imports."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from chat.models.conversations import OwnedQuerySet
from retrieval.memory_model import MemoryModel
from retrieval.queries import value


def has_imports() -> bool:
    """Whether the tables exist: not before chat 0014_imports. One query."""
    return bool(value("SELECT pg_catalog.to_regclass('imported_items') IS NOT NULL"))


class ImportStatus(models.TextChoices):
    """Where an import stands; only a done one has added anything."""

    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"


class MemoryImport(MemoryModel):
    """An import of one user's messages. ``messages``: so far while it runs, then those added."""

    id = models.BigAutoField(primary_key=True)
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    format = models.TextField()  # a key of chat/transfer/formats.py
    status = models.TextField(choices=ImportStatus.choices)
    conversations = models.BigIntegerField(default=0)
    messages = models.BigIntegerField(default=0)
    left_out = models.JSONField(default=dict)  # how many, by reason
    detail = models.TextField(default="")  # why it failed
    created_at = models.DateTimeField(db_default=Now())
    alive_at = models.DateTimeField(db_default=Now())  # the last heartbeat of its process

    objects = OwnedQuerySet.as_manager()

    class Meta(MemoryModel.Meta):
        app_label = "retrieval"  # whose tables are made by SQL alone
        db_table = "memory_imports"

    def __str__(self) -> str:
        return f"Import {self.pk}"


class ImportedItem(MemoryModel):
    """A message or a conversation that an import added; the row outlives the message.

    ``ref`` is its packed ref. ``key`` is a hash of its id in the export, so that a later export of
    the same account does not bring it again; null for one that came as a line.
    """

    id = models.BigAutoField(primary_key=True)
    # On the database's side: ON DELETE CASCADE.
    of_import = models.ForeignKey(
        MemoryImport, models.DO_NOTHING, db_column="import_id", related_name="+"
    )
    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.DO_NOTHING, db_constraint=False, related_name="+"
    )
    ref = models.BigIntegerField()
    is_conversation = models.BooleanField()
    key = models.BigIntegerField(null=True)

    class Meta(MemoryModel.Meta):
        app_label = "retrieval"
        db_table = "imported_items"
