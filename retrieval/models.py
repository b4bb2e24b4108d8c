"""The base of what has an embedding. Its column may be missing: the chat runs on, without memory."""

from collections.abc import Iterable
from typing import Any, ClassVar

from django.apps import apps
from django.db import models
from pgvector.django import VectorField

from retrieval.message_tables import MessageTable

DIMENSIONS = 1536  # of every embedding stored; contract section 6


class EmbeddedManager(models.Manager[Any]):
    """Never asks for the embedding unless it is named: 6 kB a row, in a column that may not be there."""

    def get_queryset(self) -> models.QuerySet[Any]:
        """Rows without their embeddings."""
        return super().get_queryset().defer("embedding")


class Embedded(models.Model):
    """A row whose text has an embedding, or waits for one.

    ``memory_table`` names the table for recall. Django's statements never name the column: neither SELECT (the
    manager defers it; set ``base_manager_name = "objects"`` in Meta) nor INSERT. ``retrieval.storage`` writes it.
    """

    memory_table: ClassVar[MessageTable]

    embedding = VectorField(dimensions=DIMENSIONS, null=True, blank=True, editable=False)

    class Meta:
        abstract = True

    def _do_insert(
        self, manager: Any, using: str, fields: Iterable[Any], returning_fields: Any, raw: bool
    ) -> Any:
        """Django's INSERT, without the column."""
        named = [field for field in fields if field.name != "embedding"]
        return super()._do_insert(manager, using, named, returning_fields, raw)  # type: ignore[misc] # Django's own


def message_tables() -> list[MessageTable]:
    """Every table of messages, by number."""
    found = [model.memory_table for model in apps.get_models() if issubclass(model, Embedded)]
    return sorted(found, key=lambda source: source.kind_bit)
