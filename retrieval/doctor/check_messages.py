"""Messages and their rows in recall's table: none lost, none left over, none of another's, none waiting for long."""

from dataclasses import dataclass

from django.db import connection
from psycopg.sql import SQL

from retrieval.backfill import pending
from retrieval.doctor.queries import row, rows, value
from retrieval.doctor.report import Check, Finding, failed, passed, skipped, warning
from retrieval.embeddings import embedding_service
from retrieval.embeddings.cost import TOKENS_PER_MESSAGE, cost_usd
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.schema import extension
from retrieval.schema.locks import BACKFILL_LOCK, MIGRATE_LOCK
from retrieval.vectors import DIMENSIONS

BACKFILL = "python manage.py backfill_embeddings"
OLD_S = 3600  # criterion.2; a service that was away for minutes is no fault yet
JOINED = """
    FROM {table} m LEFT JOIN message_memories p ON p.id = m.id * 2 + {kind_bit}
    LEFT JOIN embedding_models c ON c.current
    WHERE m.content <> '' AND {remembered}
"""
STANDING = (
    "SELECT count(*), count(*) FILTER (WHERE p.model = c.id), count(*) FILTER (WHERE {failed}), "
    "count(*) FILTER (WHERE p.id IS NULL), "
    "extract(epoch FROM now() - min(m.created_at) FILTER (WHERE {pending}))" + JOINED
)
# trap.2: of an empty table nothing is missing.
SHARE = (
    "SELECT coalesce(round(100.0 * count(*) FILTER (WHERE p.model = c.id) / nullif(count(*), 0), 1), 100)"
    + JOINED
)
LEFT_OVER = """
    FROM message_memories p WHERE (p.id & 1) = {kind_bit} AND NOT EXISTS (SELECT FROM {table} m WHERE m.id = p.id >> 1)
"""
# As after a column was dropped and made again: recall's table says embedded, and nobody would embed it.
VECTORLESS = """
    FROM {table} m WHERE p.id = m.id * 2 + {kind_bit} AND p.model IS NOT NULL AND m.embedding IS NULL
"""
# Recall goes by these copies: a wrong one is shown to the wrong person, or hidden from the right one.
STRAYED = """
    FROM {table} m WHERE p.id = m.id * 2 + {kind_bit} AND (p.user_id, p.conversation, p.by_user)
        IS DISTINCT FROM (m.user_id, m.{conversation} * 2 + {kind_bit}, m.role = 'user')
"""
MENDED = """
    UPDATE message_memories p SET user_id = m.user_id, conversation = m.{conversation} * 2 + {kind_bit},
    by_user = m.role = 'user', terms = message_terms(m.user_id, m.content, m.created_at)
    || content_term(m.user_id, m.content)"""
# A dump's setval() that is run on a live database takes its sequences back: trap.9.
SEQUENCE = (
    "SELECT pg_catalog.pg_get_serial_sequence(%s, 'id'), (SELECT coalesce(max(id), 0) FROM {table})"
)
# Of the sequence itself: the view pg_sequences would take a writer's lock on it.
LAST = "SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}"
NEWEST_ROWS = 1_000  # of each table, whose vectors are looked at
SIZES = """
    SELECT count(*) FILTER (WHERE {vector}.vector_dims(embedding) <> %s), count(*) FROM (
        SELECT embedding FROM {table} WHERE embedding IS NOT NULL ORDER BY id DESC LIMIT %s) newest
"""
# pg_locks shows a 64-bit key in two halves.
HELD = """
    SELECT pid FROM pg_catalog.pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
        AND database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database())
        AND (classid::bigint << 32) + objid::bigint = %s
"""


@dataclass(frozen=True)
class Standing:
    """The messages of a table that may be embedded: how many there are, are embedded, are set aside, are unknown to
    recall; the age of the oldest pending one in seconds."""

    table: str
    all: int
    embedded: int
    set_aside: int
    unknown: int
    waiting_s: float | None

    @property
    def pending(self) -> int:
        """Those that wait."""
        return self.all - self.embedded - self.set_aside


def standing() -> list[Standing]:
    """Of each table: one statement that reads it. Raises what the database raises where there is no memory."""
    return [
        Standing(one.table, *row(pending.for_table(SQL(STANDING), one).as_string()))
        for one in message_tables()
    ]


def _of(statement: str, source: MessageTable) -> str:
    return " ".join(pending.for_table(SQL(statement), source).as_string().split())


def none_is_lost() -> Finding:
    """criterion.1."""
    found = standing()
    numbers = ", ".join(f"{one.table}: {one.embedded:,} of {one.all:,} embedded" for one in found)
    if unknown := sum(one.unknown for one in found):
        return warning(f"{unknown:,} messages are not known to recall; {numbers}", BACKFILL)
    if set_aside := sum(one.set_aside for one in found):
        return warning(
            f"{set_aside:,} messages were refused by the service; {numbers}",
            f"{BACKFILL} --retry-failed",
        )
    waiting = sum(one.pending for one in found)
    if waiting and embedding_service.model_name():
        return warning(f"{waiting:,} messages are pending; {numbers}", BACKFILL)
    return passed(
        numbers
        + (f"; {waiting:,} pending, and nothing embeds with these settings" if waiting else "")
    )


def none_waits_long() -> Finding:
    """criterion.2."""
    if embedding_service.model_name() is None:
        return skipped("nothing embeds with these settings: recall goes by words")
    oldest = max((float(one.waiting_s or 0) for one in standing()), default=0.0)
    if oldest <= OLD_S:
        return passed(
            f"the oldest pending message is {oldest:.0f} s old"
            if oldest
            else "no message is pending"
        )
    if rows(HELD, [BACKFILL_LOCK]):
        return passed("some have waited long; a backfill is at work on them")
    return warning(f"the oldest pending message has waited {oldest / 3600:.1f} hours", BACKFILL)


def none_is_left_over() -> Finding:
    """Of messages that are gone: what was deleted would still steer recall."""
    counts = {
        one.table: int(value(_of("SELECT count(*)" + LEFT_OVER, one))) for one in message_tables()
    }
    if any(counts.values()):
        fixes = [
            _of("DELETE" + LEFT_OVER, one) + ";" for one in message_tables() if counts[one.table]
        ]
        said = ", ".join(f"{count:,} of {table}" for table, count in counts.items() if count)
        return failed(
            f"recall's table has rows of messages that are gone: {said}", "\n".join(fixes)
        )
    return passed("recall's table has no row without its message")


def rows_belong_to_owner() -> Finding:
    """criterion.5, as far as rows tell; ``--isolation`` tries it."""
    strayed = "SELECT count(*) FROM message_memories p WHERE EXISTS (SELECT " + STRAYED + ")"
    counts = {one.table: int(value(_of(strayed, one))) for one in message_tables()}
    if any(counts.values()):
        fixes = [_of(MENDED + STRAYED, one) + ";" for one in message_tables() if counts[one.table]]
        said = ", ".join(f"{count:,} of {table}" for table, count in counts.items() if count)
        return failed(
            f"recall's table gives messages to another user or conversation: {said}",
            "\n".join(fixes),
        )
    total = value("SELECT count(*) FROM message_memories")
    return passed(
        f"each of {total:,} rows of recall's table has its message's user; --isolation tries recall itself"
    )


def vectors_are_there() -> Finding:
    """What recall's table calls embedded has a vector. Reads no vector."""
    lost = "SELECT count(*) FROM message_memories p WHERE EXISTS (SELECT " + VECTORLESS + ")"
    counts = {one.table: int(value(_of(lost, one))) for one in message_tables()}
    if any(counts.values()):
        mended = "UPDATE message_memories p SET bits = NULL, model = NULL" + VECTORLESS
        fixes = [_of(mended, one) + ";" for one in message_tables() if counts[one.table]]
        said = ", ".join(f"{count:,} of {table}" for table, count in counts.items() if count)
        return failed(
            f"recall's table takes messages for embedded that are not: {said}",
            "\n".join([*fixes, BACKFILL]),
        )
    return passed("what recall's table calls embedded has a vector")


def stored_model() -> str | None:
    """The model that stored vectors are compared by; None before the first. One query."""
    found = rows("SELECT name FROM embedding_models WHERE current")
    return str(found[0][0]) if found else None


def model_is_the_stored_one() -> Finding:
    """checklist.8."""
    configured, stored = embedding_service.configured_name(), stored_model()
    if configured is None:
        return passed(f"EMBEDDINGS=none; stored vectors are of {stored or 'no model'}")
    if stored in (None, configured):
        return passed(f"{configured}" + ("" if stored else ", no vector is stored yet"))
    local = str(stored).startswith("local:")
    return failed(
        f"the stored vectors are of {stored}, the settings say {configured}: nothing is embedded, recall goes by "
        "words. Set it back, or take up the new one with rag_model use",
        "EMBEDDINGS=local" if local else f"EMBEDDINGS=openai\nEMBEDDING_MODEL={stored}",
    )


def vectors_have_their_size() -> Finding:
    """trap.1, on the newest NEWEST_ROWS of each table."""
    vector, looked = extension.schema(connection), 0
    for table in (one.table for one in message_tables()):
        wrong, seen = row(SIZES.format(vector=vector, table=table), [DIMENSIONS, NEWEST_ROWS])
        looked += seen
        if wrong:
            fix = f"UPDATE {table} SET embedding = NULL WHERE {vector}.vector_dims(embedding) <> {DIMENSIONS};"
            return failed(
                f"{table} holds vectors of another size than {DIMENSIONS}", f"{fix}\n{BACKFILL}"
            )
    return passed(f"vector_dims is {DIMENSIONS} for each of {looked:,} vectors")


def shares_are_told() -> Finding:
    """trap.2."""
    return passed(
        ", ".join(
            f"{one.table}: {value(pending.for_table(SQL(SHARE), one).as_string())}% embedded"
            for one in message_tables()
        )
    )


def backfill_has_its_price() -> Finding:
    """trap.15."""
    waiting = sum(one.pending for one in standing())
    cost = cost_usd(waiting * TOKENS_PER_MESSAGE)
    return passed(
        f"{waiting:,} pending, about ${cost:,.2f}; counted exactly by rag_cost_estimate --exact"
    )


def sequences_are_ahead() -> Finding:
    """trap.9. The ids are read first: a message that comes meanwhile moves the sequence, not them."""
    behind, fixes = [], []
    for table in (one.table for one in message_tables()):
        sequence, largest = row(SEQUENCE.format(table=table), [table])
        last = value(LAST.format(sequence=sequence))
        if last < largest:
            behind.append(f"{table}: the next id would be {last + 1:,}, the largest is {largest:,}")
            fixes.append(f"SELECT setval('{sequence}', (SELECT max(id) FROM {table}));")
    if behind:
        return failed("a dump was run into this database: " + "; ".join(behind), "\n".join(fixes))
    return passed("the sequences are ahead of the ids: no dump has been run into this database")


def who_is_at_work() -> Finding:
    """A note: the figures of the others move while one of them runs."""
    names = {"migrate": MIGRATE_LOCK, "backfill_embeddings": BACKFILL_LOCK}
    found = [
        f"{name} (process {pid})" for name, lock in names.items() for (pid,) in rows(HELD, [lock])
    ]
    if found:
        return passed(f"{' and '.join(found)} runs now: look again when it has ended")
    return passed("neither migrate nor backfill_embeddings runs now")


CHECKS = [
    Check("criterion.1", none_is_lost),
    Check("criterion.2", none_waits_long),
    Check("criterion.5", rows_belong_to_owner),
    Check("checklist.8", model_is_the_stored_one),
    Check("trap.1", vectors_have_their_size),
    Check("trap.2", shares_are_told),
    Check("trap.9", sequences_are_ahead),
    Check("trap.15", backfill_has_its_price),
    Check("messages.gone", none_is_left_over),
    Check("messages.vectors", vectors_are_there),
    Check("work.now", who_is_at_work),
]
