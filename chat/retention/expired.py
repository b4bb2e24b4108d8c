"""Finds and deletes expired conversations, in transactions that lock for a tenth of a second.

What goes with a conversation: its messages, and by the triggers and keys of the database their
memory, embeddings, idempotency keys and the ids by which clients know a chat.
"""

import logging
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from pathlib import Path
from typing import Any

from django.db import OperationalError, connection, transaction
from psycopg import sql

from chat.models import KINDS, Message
from retrieval import queries
from retrieval.db_errors import sqlstate
from retrieval.replica.user_writes import recorded
from retrieval.sql_files import read_statements

logger = logging.getLogger(__name__)
MAX_BATCH = 500  # conversations a transaction: docs/promises.md
FIRST_BATCH = 20
MAX_MESSAGES = 500  # a transaction; a longer conversation is deleted in several
MAX_LOCKED_S = 0.1  # what a transaction should take, by the ones before; promised are 0.3 s
LOCK_TIMEOUT = "SET LOCAL lock_timeout = '150ms'"  # for rows that another session holds
# Nothing is lost if the database server crashes within a second: the next run deletes it again.
NO_WAIT_FOR_DISK = "SET LOCAL synchronous_commit = off"
CONFLICTS = {"55P03", "40P01"}  # lock_not_available, deadlock_detected
MAX_TRIES = 200  # 30 s, for a conversation of which a part is deleted already
HELD = "The first messages of conversation %s were deleted; another session holds the next ones"


@dataclass
class Counts:
    """How many were deleted, or would be."""

    conversations: int = 0
    messages: int = 0


def _composed(model: type[Message]) -> dict[str, str]:
    """The statements for one kind of conversations."""
    names: dict[str, sql.Composable] = {
        "kind_bit": sql.Literal(model.memory_table.kind_bit),
        "messages": sql.Identifier(model._meta.db_table),
        "conversations": sql.Identifier(model.conversation.field.related_model._meta.db_table),
        "conversation": sql.Identifier(model.conversation.field.column),
    }
    statements = read_statements(Path(__file__).with_name("expired.sql"))
    expired = statements.pop("expired").format(**names)
    return {
        name: statement.format(expired=expired, **names).as_string()
        for name, statement in statements.items()
    }


STATEMENTS = {kind: _composed(model) for kind, model in KINDS.items()}


def count(*, days: int) -> Counts:
    """What ``delete`` would delete now. One statement for each kind."""
    counts = Counts()
    for statements in STATEMENTS.values():
        conversations, messages = queries.row(statements["count"], {"days": days})
        counts.conversations += conversations
        counts.messages += messages
    return counts


def delete(counts: Counts, *, days: int) -> Iterator[None]:
    """Delete the expired conversations, and add to ``counts``.

    Yields after each transaction; the caller may stop there.
    """
    for statements in STATEMENTS.values():
        sizes = _Sizes()
        after = 0
        while ids := _find(statements, after, days=days):
            after = ids[-1]
            yield from _delete_all(statements, ids, counts, sizes, days=days)


class _Sizes:
    """How many conversations the next transaction takes, as the last ones have measured."""

    def __init__(self) -> None:
        self.next = FIRST_BATCH

    def adapt(self, taken: int, seconds: float) -> None:
        fitting = int(taken * MAX_LOCKED_S / max(seconds, MAX_LOCKED_S / 4))
        self.next = min(max(fitting, 1), MAX_BATCH)


def _find(statements: dict[str, str], after: int, *, days: int) -> list[int]:
    params = {"after": after, "days": days, "limit": MAX_BATCH}
    return [pk for (pk,) in queries.rows(statements["find"], params)]


def _delete_all(
    statements: dict[str, str], ids: list[int], counts: Counts, sizes: _Sizes, *, days: int
) -> Iterator[None]:
    """All of these conversations, but those that another session holds.

    Does not yield between the transactions of one conversation, and tries the next one MAX_TRIES
    times, so that none is left in part.
    """
    started, tries = 0, 0
    while ids:
        batch, is_partial = ids[: sizes.next], False
        began = time.monotonic()
        try:
            unfinished, is_partial = _delete_batch(statements, batch, counts, days=days)
        except OperationalError as error:
            if sqlstate(error) not in CONFLICTS:
                raise
            tries += 1
            is_partial = batch[0] == started and tries < MAX_TRIES
            unfinished = batch if len(batch) > 1 or is_partial else []
            if batch == [started] and not is_partial:
                logger.warning(HELD, started)
            sizes.next = 1
        else:
            started, tries = unfinished[0] if is_partial else 0, 0
            sizes.adapt(len(batch), time.monotonic() - began)
        ids = unfinished + ids[len(batch) :]
        if not is_partial:
            yield


def _delete_batch(
    statements: dict[str, str], ids: list[int], counts: Counts, *, days: int
) -> tuple[list[int], bool]:
    """One transaction. The conversations that have messages left, the one with a part first.

    And whether there is such a one: it has more than MAX_MESSAGES.
    """
    with transaction.atomic(), recorded() as users, connection.cursor() as cursor:

        def run(name: str, ids: Sequence[int], **more: Any) -> list[int]:
            params: dict[str, Any] = {"ids": list(ids), "days": days} | more
            cursor.execute(statements[name], params)
            return [value for (value,) in cursor.fetchall()] if cursor.description else []

        cursor.execute(LOCK_TIMEOUT)
        cursor.execute(NO_WAIT_FOR_DISK)
        expired = sorted(run("still_expired", run("lock", ids)))
        totals = list(accumulate(run("sizes", expired)))
        whole = sum(total <= MAX_MESSAGES for total in totals)
        messages = run("lock_messages", expired[: max(whole, 1)], max_messages=MAX_MESSAGES)
        run("lock_memories", messages)
        run("delete_messages", messages)
        empty = run("without_messages", expired)
        run("delete_keys", empty)
        users.update(run("delete", empty))
    counts.messages += len(messages)
    counts.conversations += len(empty)
    return sorted(set(expired) - set(empty)), bool(expired) and whole == 0
