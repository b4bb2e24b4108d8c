"""Rows with embeddings, and memory's own tables.

Memory can be missing from a database: before its migrations and after the way back the chat runs
without it. So no statement of the chat names the column ``embedding`` or one of these tables.
"""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.apps import apps
from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.db import models
from django.db.models.functions import Now
from pgvector.django import BitField, VectorField

from retrieval.memory_model import MemoryModel
from retrieval.message_tables import MessageTable
from retrieval.queue_models import EmbeddingClaim as EmbeddingClaim
from retrieval.queue_models import EmbeddingRate as EmbeddingRate
from retrieval.replica.user_write_model import UserWrite as UserWrite
from retrieval.rollout_models import RecallTime as RecallTime
from retrieval.rollout_models import Rollout as Rollout
from retrieval.token_models import TokenUsage as TokenUsage
from retrieval.token_models import UserTokenUsage as UserTokenUsage
from retrieval.vectors import DIMENSIONS


class EmbeddedManager(models.Manager[Any]):
    """Defers the embedding: it is 6 kB a row, in a column that may be missing."""

    def get_queryset(self) -> models.QuerySet[Any]:
        return super().get_queryset().defer("embedding")


class Embedded(models.Model):
    """A row whose text has an embedding, or waits for one.

    Django's statements never name the column: not in SELECT (the manager defers it; a subclass sets
    ``base_manager_name = "objects"`` in Meta), not in INSERT. ``retrieval.storage`` writes it.
    """

    memory_table: ClassVar[MessageTable]

    embedding = VectorField(dimensions=DIMENSIONS, null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def _do_insert(
        self, manager: Any, using: str, fields: Iterable[Any], returning_fields: Any, raw: bool
    ) -> Any:
        named = [field for field in fields if field.name != "embedding"]
        insert = super()._do_insert  # type: ignore[misc] # private in Django
        return insert(manager, using, named, returning_fields, raw)


class EmbeddingModel(MemoryModel):
    """A model whose vectors are stored. At most one is current: new vectors come from it."""

    id = models.SmallAutoField(primary_key=True)
    name = models.TextField(unique=True)
    current = models.BooleanField(default=False)
    min_similarity = models.FloatField(null=True)  # measured: retrieval/recall/min_similarity.py
    measured_at = models.DateTimeField(null=True)

    class Meta(MemoryModel.Meta):
        db_table = "embedding_models"

    def __str__(self) -> str:
        return self.name


class SearchConfig(MemoryModel):
    """A text search configuration of PostgreSQL; the current one stems words for recall."""

    id = models.SmallAutoField(primary_key=True)
    config = models.TextField(unique=True)  # qualified: pg_catalog.english
    months = ArrayField(models.TextField(), size=12)  # their names, in the configuration's language
    current = models.BooleanField(default=False)

    class Meta(MemoryModel.Meta):
        db_table = "search_configs"

    def __str__(self) -> str:
        return self.config


class MessageMemory(MemoryModel):
    """What recall reads of a message with content: one narrow row, written by triggers.

    ``id`` and ``conversation`` are packed refs (``MessageTable.pack_ref``): one number names a row
    of either message table. Why a table of its own: docs/decisions/0009-recall-structures.md.
    """

    id = models.BigIntegerField(primary_key=True)
    user_id = models.BigIntegerField()
    conversation = models.BigIntegerField()
    created_at = models.DateTimeField()
    by_user = models.BooleanField()
    # 64-bit hashes of its words, its date and its whole content, mixed with the user's id.
    terms = ArrayField(models.BigIntegerField())
    # At most 300; negative in rows of an earlier schema: a question, whose is_question is null.
    chars = models.SmallIntegerField()
    is_question = models.BooleanField(null=True)
    bits = BitField(length=DIMENSIONS, null=True)  # the signs of its embedding's numbers
    # The model that computed the embedding; null without an embedding, or if it is not known.
    model = models.ForeignKey(
        EmbeddingModel,
        models.DO_NOTHING,
        null=True,
        db_column="model",
        db_constraint=False,
        related_name="+",
    )
    # The configuration that stemmed its words; null: an earlier rule did.
    search_config = models.ForeignKey(
        SearchConfig, models.DO_NOTHING, null=True, db_constraint=False, related_name="+"
    )
    embedding_error = models.TextField(null=True)  # why backfill_embeddings has set it aside

    class Meta(MemoryModel.Meta):
        db_table = "message_memories"


class ForgottenMessage(MemoryModel):
    """An edit or a deletion whose taint is not propagated yet, or (``tainted``) a tainted answer.

    Both kinds of rows: retrieval/forgetting.sql, docs/decisions/0013-forgetting.md
    """

    pk = models.CompositePrimaryKey("id", "tainted")
    id = models.BigIntegerField()  # the message's packed ref
    user_id = models.BigIntegerField()
    # When the message was created; of a tainted answer: when its text was written.
    message_at = models.DateTimeField()
    # infinity: deleted.
    forgotten_at = models.DateTimeField(db_default=Now())
    tainted = models.BooleanField(default=False, db_default=False)

    class Meta(MemoryModel.Meta):
        db_table = "forgotten_messages"


class EmbeddingUsage(MemoryModel):
    """What calls to the embedding service cost on a day."""

    pk = models.CompositePrimaryKey("day", "model", "outcome")
    day = models.DateField()
    model = models.TextField()
    outcome = models.TextField()
    calls = models.BigIntegerField()
    texts = models.BigIntegerField()
    tokens = models.BigIntegerField()
    cost_usd = models.FloatField()

    class Meta(MemoryModel.Meta):
        db_table = "embedding_usage"


class UserEmbeddingUsage(MemoryModel):
    """What of a day's usage was bought for a user. The day may have more, of unknown users."""

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.DO_NOTHING,
        null=True,  # LEFT JOIN: the user may be deleted
        db_constraint=False,
        related_name="+",
    )
    day = models.DateField()
    model = models.TextField()
    texts = models.BigIntegerField()
    tokens = models.BigIntegerField()
    cost_usd = models.FloatField()

    class Meta(MemoryModel.Meta):
        db_table = "user_embedding_usage"
        default_permissions: ClassVar[Any] = ("view",)
        verbose_name_plural = "embedding usage by user"


class LogCount(MemoryModel):
    """How many lines of a kind the servers logged in a minute: errors, and starts."""

    pk = models.CompositePrimaryKey("minute", "kind", "at_start")
    minute = models.DateTimeField()
    kind = models.TextField()  # retrieval/log_counts.py
    at_start = models.BooleanField()
    count = models.BigIntegerField()

    class Meta(MemoryModel.Meta):
        db_table = "log_counts"


class AuditLine(MemoryModel):
    """Who saw or changed what that is another's: retrieval/audit.py. No role can change a line."""

    id = models.BigAutoField(primary_key=True)
    at = models.DateTimeField(db_default=Now())
    who = models.TextField()
    what = models.TextField()
    whose = models.TextField(default="")  # '': nobody's, or everybody's

    class Meta(MemoryModel.Meta):
        db_table = "audit_log"
        verbose_name_plural = "audit log"

    def __str__(self) -> str:
        return f"{self.who}: {self.what}"


class DoctorRun(MemoryModel):
    """The last run of the doctor from the admin's page, the only row: retrieval/doctor/last_run."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    at = models.DateTimeField()
    who = models.TextField()
    findings = models.JSONField()  # [{"name", "status", "detail", "fix"}]

    class Meta(MemoryModel.Meta):
        db_table = "doctor_run"


class RecallMeasurement(MemoryModel):
    """A run of ``measure_recall``."""

    measured_at = models.DateTimeField(primary_key=True, db_default=Now())
    questions = models.IntegerField()
    users = models.IntegerField()
    recall = models.FloatField()
    p50_ms = models.FloatField()
    p95_ms = models.FloatField()

    class Meta(MemoryModel.Meta):
        db_table = "recall_measurements"


def recalled_tables() -> list[str]:
    """The names of the tables that recall reads: the message tables and message_memories."""
    return [*(table.table for table in message_tables()), MessageMemory._meta.db_table]


def message_tables() -> list[MessageTable]:
    """Both message tables, by kind bit."""
    tables = [model.memory_table for model in apps.get_models() if issubclass(model, Embedded)]
    return sorted(tables, key=lambda table: table.kind_bit)
