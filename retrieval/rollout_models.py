"""The tables of ``rag_rollout``: its state, and the times of recall. retrieval/rollout"""

from django.db import models

from retrieval.memory_model import MemoryModel


class Rollout(MemoryModel):
    """Who is given memories, and the fuse: the only row."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    state = models.TextField()  # off, dark, on, or a share such as 5%
    fuse_ms = models.IntegerField(null=True)
    fuse_errors = models.IntegerField(null=True)
    set_at = models.DateTimeField()
    blown_at = models.DateTimeField(null=True)
    blown_reason = models.TextField(null=True)

    class Meta(MemoryModel.Meta):
        db_table = "rag_rollout"

    def __str__(self) -> str:
        return self.state


class RecallTime(MemoryModel):
    """How many recalls of turns ended in some seconds and took about as long."""

    pk = models.CompositePrimaryKey("slot", "bucket")
    slot = models.DateTimeField()  # its beginning: retrieval/rollout/recall_times.py
    bucket = models.SmallIntegerField()
    count = models.BigIntegerField()
    errors = models.BigIntegerField()  # of these
    added_tokens = models.BigIntegerField()  # to prompts; in the dark, what would have been added

    class Meta(MemoryModel.Meta):
        db_table = "recall_times"
