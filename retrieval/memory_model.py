"""The base of the models of memory's own tables."""

from typing import Any, ClassVar

from django.db import models


class MemoryModel(models.Model):
    """A table of memory's own, made by SQL in a migration of the chat (chat/migrations/sql)."""

    class Meta:
        abstract = True
        managed = False
        default_permissions: ClassVar[Any] = ()
