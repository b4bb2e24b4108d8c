"""The latest write of each user, as a model: for deletions, and for tests."""

from django.db import models

from retrieval.memory_model import MemoryModel


class UserWrite(MemoryModel):
    """``xid`` has a type that Django does not know: retrieval/replica/user_writes.py reads it."""

    user_id = models.BigIntegerField(primary_key=True)

    class Meta(MemoryModel.Meta):
        db_table = "user_writes"
