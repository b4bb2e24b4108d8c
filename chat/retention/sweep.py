"""Deletes expired conversations once an hour, by one process: a periodic task of the servers.

It begins only after an operator has run ``expire_conversations`` once: a RETENTION_DAYS that was
set by mistake deletes nothing by itself.
"""

import logging
import time

from django.conf import settings
from django.db import transaction
from django.db.models.functions import Now

from chat.models import RetentionState
from chat.retention import expired
from chat.retention.expired import Counts
from retrieval import audit, queries, steps
from retrieval.later_table import LaterTable

logger = logging.getLogger(__name__)
MAX_SWEEP_S = 60.0  # then the next one goes on, so that a thread is not taken for hours
# Only one process gets the row, at most once an hour. Locks: the row.
CLAIM = """
    UPDATE retention_state SET swept_at = now()
    WHERE swept_at IS NULL OR swept_at < now() - interval '1 hour' RETURNING true
"""

_table = LaterTable(RetentionState._meta.db_table)


def has_table() -> bool:
    """Whether servers can sweep: not before chat 0018_retention. At most one query a minute."""
    return _table.may_write()


def begin() -> None:
    """An operator runs the command: from now on servers do so by themselves. One statement."""
    RetentionState.objects.bulk_create([RetentionState(begun_at=Now())], ignore_conflicts=True)


def sweep() -> Counts:
    """Delete what is expired if it is this process's turn. No query without RETENTION_DAYS."""
    counts = Counts()
    days = settings.RETENTION_DAYS
    if days is None or not has_table() or not queries.rows(CLAIM):
        return counts
    until = time.monotonic() + MAX_SWEEP_S
    for _ in expired.delete(counts, days=days):
        steps.release_connection()
        if time.monotonic() >= until:
            RetentionState.objects.update(swept_at=None)  # the next sweep goes on
            break
    if counts.conversations:
        _record(counts)
    return counts


def _record(counts: Counts) -> None:
    with transaction.atomic():
        audit.record("verse", f"expire_conversations: {counts.conversations} conversations")
    logger.info(
        "Retention: deleted %d conversations, %d messages", counts.conversations, counts.messages
    )
