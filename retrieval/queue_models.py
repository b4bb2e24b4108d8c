"""The tables of processes that embed: who embeds what, and how much all may buy."""

from django.db import models

from retrieval.memory_model import MemoryModel


class EmbeddingClaim(MemoryModel):
    """A message that a process embeds at the moment: retrieval/backfill/claims.py."""

    id = models.BigIntegerField(primary_key=True)  # the message's packed ref
    holder = models.BigIntegerField()  # a random number of the process, or BACKFILL_HOLDER
    until = models.DateTimeField()

    class Meta(MemoryModel.Meta):
        db_table = "embedding_claims"


class EmbeddingRate(MemoryModel):
    """The token bucket, the only row: retrieval/backfill/token_bucket.py."""

    id = models.SmallIntegerField(primary_key=True, default=1)
    tokens = models.FloatField()  # below 0: reserved, and waited for
    at = models.DateTimeField()

    class Meta(MemoryModel.Meta):
        db_table = "embedding_rate"
