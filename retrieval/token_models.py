"""The tables of tokens that turns have used: retrieval/token_usage.py"""

from django.db import models

from retrieval.memory_model import MemoryModel


class UserTokenUsage(MemoryModel):
    """The tokens of a user's turns on a day (UTC, by the database's clock)."""

    pk = models.CompositePrimaryKey("user_id", "day")
    user_id = models.BigIntegerField()
    day = models.DateField()
    prompt_tokens = models.BigIntegerField()
    completion_tokens = models.BigIntegerField()
    cached_tokens = models.BigIntegerField()  # of the prompt's
    embedding_tokens = models.BigIntegerField()

    class Meta(MemoryModel.Meta):
        db_table = "user_token_usage"


class TokenUsage(MemoryModel):
    """The tokens of all turns on a day, in parts: users whose ids differ add to different rows."""

    pk = models.CompositePrimaryKey("day", "part")
    day = models.DateField()
    part = models.SmallIntegerField()  # the user's id, modulo token_usage.PARTS
    tokens = models.BigIntegerField()

    class Meta(MemoryModel.Meta):
        db_table = "token_usage"
