"""EMBEDDING_RATE_TOKENS_PER_MIN: one bucket in the database for all workers and backfills.

It holds a minute's tokens at most, and fills evenly. A call may take more tokens than there are:
the level goes below zero, and the call waits until it would be zero again. Later calls wait longer.
So calls keep their order, and a large call is not overtaken for ever by small ones.
"""

from collections.abc import Callable

from django.conf import settings

from retrieval import db
from retrieval.embeddings.batching import MAX_CALL_TOKENS
from retrieval.later_table import LaterTable
from retrieval.queue_models import EmbeddingRate

# Returns the seconds until what was taken is there. Locks: the row, for this statement.
TAKE = """
    INSERT INTO embedding_rate AS r (id, tokens, at)
    VALUES (1, %(limit)s::float8 - %(tokens)s, clock_timestamp())
    ON CONFLICT (id) DO UPDATE SET at = greatest(r.at, excluded.at),
        tokens = least(%(limit)s::float8, r.tokens
            + greatest(extract(epoch FROM excluded.at - r.at)::float8, 0) * %(limit)s / 60)
            - %(tokens)s
    RETURNING greatest(-r.tokens, 0) * 60 / %(limit)s
"""
_table = LaterTable(EmbeddingRate._meta.db_table)


def is_limited() -> bool:
    """Whether there is a limit. Bundled models have none: they cost nothing."""
    return settings.EMBEDDING_RATE_TOKENS_PER_MIN is not None and settings.EMBEDDINGS == "openai"


def max_call_tokens() -> int:
    """How many tokens one call may have."""
    limit = settings.EMBEDDING_RATE_TOKENS_PER_MIN if is_limited() else None
    return MAX_CALL_TOKENS if limit is None else min(limit, MAX_CALL_TOKENS)


def take(tokens: int, *, wait: Callable[[float], None]) -> None:
    """Wait until a call of so many tokens may be made; at most ``max_call_tokens``.

    One statement; none without a limit, or on a schema before chat 0019_embed_queue. What ``wait``
    raises ends the wait, and gives the tokens back.
    """
    if not is_limited() or not _table.may_write():
        return
    wait_s = _take(tokens)
    try:
        if wait_s > 0:
            wait(wait_s)
    except BaseException:
        _take(-tokens)
        raise


def _take(tokens: int) -> float:
    limit = settings.EMBEDDING_RATE_TOKENS_PER_MIN
    ((wait_s,),) = db.execute(TAKE, {"limit": limit, "tokens": tokens})
    return float(wait_s)
