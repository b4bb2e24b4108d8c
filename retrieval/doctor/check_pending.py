"""Messages that wait for their embedding, and the commands that are at work on them."""

from dataclasses import dataclass

from psycopg import sql

from retrieval.backfill.pending import for_table
from retrieval.doctor.check_migrations import memory_apps
from retrieval.doctor.check_vectors import stored_model_is_configured
from retrieval.doctor.fixes import BACKFILL, SET_KEY, STATUS
from retrieval.doctor.report import Check, Finding, failed, information, passed, skipped, warning
from retrieval.embeddings import embedding_service
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.queries import row, rows, value
from retrieval.schema.locks import BACKFILL_LOCK, MIGRATE_LOCK

MAX_AGE_S = 3600  # criterion.3; that the service is away for some minutes is normal
# An imported message is new here, whatever its own time: chat/transfer/importing.py marks when the
# messages from an id on came. Not 'infinity', of which nothing can be subtracted before PostgreSQL
# 17: such a message is taken as new.
COUNTS = sql.SQL("""
    WITH imports AS MATERIALIZED (
        SELECT split_part(name, ' ', 3)::bigint AS first_id, hits[1] AS at
        FROM rate_windows WHERE name LIKE 'import ' || {table_name} || ' %%'
    )
    SELECT count(*), count(*) FILTER (WHERE p.model = c.id),
        count(*) FILTER (WHERE {failed}), count(*) FILTER (WHERE p.id IS NULL),
        extract(epoch FROM now() - least(now(), min(
            greatest(m.created_at, m.edited_at, %(memory_since)s,
                (SELECT changed_at FROM memory_switches s WHERE s.user_id = m.user_id),
                (SELECT max(at) FROM imports WHERE first_id <= m.id))
        ) FILTER (WHERE {pending} AND p.model IS NULL AND {not_tainted}))),
        count(*) FILTER (WHERE {pending} AND NOT {not_tainted})
    FROM {table} m LEFT JOIN message_memories p ON p.id = {message_ref}
    LEFT JOIN embedding_models c ON c.current
    WHERE m.content <> '' AND {remembered}
""")
MEMORY_SINCE = "SELECT min(applied) FROM django_migrations WHERE app = ANY (%s) AND name >= '0002'"
# pg_locks shows a 64-bit key in two halves.
ADVISORY_LOCK_HOLDERS = """
    SELECT pid FROM pg_catalog.pg_locks
    WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (
            SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND (classid::bigint << 32) + objid::bigint = %s
"""


@dataclass(frozen=True)
class EmbeddingCounts:
    """The messages of one table that may be embedded.

    ``unknown``: without a row in message_memories, as messages from before memory's migrations are
    until the first backfill. ``oldest_s``: how long the oldest one that was never embedded has
    waited, since it was written, edited or imported, or its user turned memory on; at most since
    those migrations.
    """

    table: str
    total: int
    embedded: int
    set_aside: int
    unknown: int
    oldest_s: float | None
    tainted: int

    @property
    def pending(self) -> int:
        return self.total - self.embedded - self.set_aside - self.tainted


def _counts() -> list[EmbeddingCounts]:
    """One statement for each message table, which reads the whole table, and one for their age."""
    params = {"memory_since": value(MEMORY_SINCE, [list(memory_apps())])}
    return [
        EmbeddingCounts(table.table, *row(_counts_statement(table), params))
        for table in message_tables()
    ]


def _counts_statement(table: MessageTable) -> sql.Composed:
    return for_table(COUNTS, table, table_name=sql.Literal(table.table))


def no_messages_lost() -> Finding:
    """Whether recall knows each message, and whether each is embedded."""
    counts = _counts()
    detail = ", ".join(
        f"{count.table}: {count.embedded:,} of {count.total:,} embedded" for count in counts
    )
    pending = sum(count.pending for count in counts)
    if unknown := sum(count.unknown for count in counts):
        return warning(f"{unknown:,} messages are not known to recall; {detail}", BACKFILL)
    if set_aside := sum(count.set_aside for count in counts):
        return warning(
            f"{set_aside:,} messages were refused by the service; {detail}",
            f"{BACKFILL} --retry-failed",
        )
    if not pending:
        return passed(detail)
    if embedding_service.model_name():
        return warning(f"{pending:,} messages are pending; {detail}", BACKFILL)
    return passed(f"{detail}; {pending:,} pending, and nothing embeds with these settings")


def no_message_waits_long() -> Finding:
    """How long the oldest message has waited for its first vector: FAIL above an hour."""
    if embedding_service.model_name() is None:
        return skipped("nothing embeds with these settings: recall goes by words", SET_KEY)
    oldest_s = max((float(count.oldest_s or 0) for count in _counts()), default=0.0)
    if not oldest_s:
        return passed("no message is pending")
    if oldest_s <= MAX_AGE_S:
        return passed(f"the oldest pending message has waited {oldest_s:.0f} s")
    if rows(ADVISORY_LOCK_HOLDERS, [BACKFILL_LOCK]):
        return passed("some have waited long; a backfill is at work on them")
    return failed(
        f"the oldest pending message has waited {oldest_s / 3600:.1f} hours, and no backfill runs",
        *stored_model_is_configured().fix.splitlines(),
        BACKFILL,
    )


def running_commands() -> Finding:
    """Whether migrate, rag_index or backfill_embeddings runs now: other checks change with it."""
    locks = {"migrate or rag_index": MIGRATE_LOCK, "backfill_embeddings": BACKFILL_LOCK}
    running = [
        f"{name} (process {pid})"
        for name, lock in locks.items()
        for (pid,) in rows(ADVISORY_LOCK_HOLDERS, [lock])
    ]
    if running:
        return information(
            f"{' and '.join(running)} runs now: look again when it has ended", STATUS
        )
    return information("no migrate, rag_index or backfill_embeddings runs now", STATUS)


def checks() -> list[Check]:
    return [
        Check("checklist.9", no_messages_lost),
        Check("criterion.3", no_message_waits_long),
        Check("work.now", running_commands),
    ]
