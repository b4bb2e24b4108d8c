"""Embeds pending messages that no process embeds, without counting them before."""

import time
from collections.abc import Generator, Iterator, Sequence
from typing import Any

from psycopg import sql

from retrieval import db
from retrieval.backfill.embed_table import TableBackfill
from retrieval.backfill.pending import YOUNG, condition_of, for_table, models_of_pending
from retrieval.backfill.progress_line import Report
from retrieval.message_tables import MessageTable

# As pending.NEXT_ROWS, but without rows that are claimed. Locks: none.
UNCLAIMED = sql.SQL("""
    SELECT p.id FROM message_memories p CROSS JOIN LATERAL (
        SELECT * FROM {table} WHERE id = p.id >> 1 OFFSET 0) m
    WHERE {model} AND (p.id & 1) = {kind_bit} AND p.id > %(after)s
        AND p.embedding_error IS NULL AND {remembered} AND {not_tainted}
        AND {chosen}
        AND NOT EXISTS (SELECT FROM embedding_claims c WHERE c.id = p.id AND c.until > now())
    ORDER BY p.model, p.id & 1, p.id LIMIT %(limit)s
""")
# A user's message of the last seconds is left to its turn, which embeds it as a question.
IS_OLD = sql.SQL(
    "greatest(m.created_at, m.edited_at) < now() - %(min_age_s)s * interval '1 second'"
)
IS_ANSWER_OF_NOW = sql.SQL("p.id <= %(last)s AND NOT p.by_user AND {young}").format(young=YOUNG)
# Then it begins at the oldest message again. What a dead worker had claimed, and messages without
# any vector, must not wait until all others are embedded by a new model.
PASS_S = 20.0


def unclaimed(
    table: MessageTable, *, model: int | None, min_age_s: float, limit: int, after: int
) -> list[int]:
    """Packed refs of the oldest pending messages, with vectors by ``model``, after ref ``after``.

    They were written ``min_age_s`` ago. One statement.
    """
    params = {"model": model, "after": after, "min_age_s": min_age_s, "limit": limit}
    return _unclaimed(table, IS_OLD, params)


def unclaimed_answers(table: MessageTable, *, after: int, last: int, limit: int) -> list[int]:
    """Packed refs of the oldest pending answers of the last minute, between these refs.

    One statement. Older ones may be imported.
    """
    params = {"model": None, "after": after, "last": last, "limit": limit}
    return _unclaimed(table, IS_ANSWER_OF_NOW, params)


def _unclaimed(table: MessageTable, chosen: sql.Composable, params: dict[str, Any]) -> list[int]:
    statement = for_table(
        UNCLAIMED, table, model=condition_of(table, params["model"]), chosen=chosen
    )
    return [ref for (ref,) in db.execute(statement, params)]


def sweep(runs: Sequence[TableBackfill], *, min_age_s: float) -> Iterator[Report]:
    """Embed what is pending for ``min_age_s``, oldest first; a report for each call.

    Ends when nothing is pending. Raises as ``Backfill.embed``.
    """
    while not (yield from _sweep_until(time.monotonic() + PASS_S, runs, min_age_s)):
        pass


def _sweep_until(
    end_s: float, runs: Sequence[TableBackfill], min_age_s: float
) -> Generator[Report, None, bool]:
    """One pass; whether all was looked at by ``end_s``, in monotonic time.

    One statement for each table and model, and one for each call.
    """
    for run in runs:
        if report := run.store_unstored():
            yield report
        for model in models_of_pending():
            after = 0
            while refs := unclaimed(
                run.table, model=model, min_age_s=min_age_s, limit=run.batch_size, after=after
            ):
                # What lies before has been read: it is switched off, perhaps. The call may not have
                # room for all of these.
                after = refs[0] - 1
                report = run.embed_refs(refs)
                if report is None:  # another process was faster
                    break
                yield report
                if time.monotonic() > end_s:
                    return False
    return True
