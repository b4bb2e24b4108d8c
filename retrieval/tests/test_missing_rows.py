"""Messages that memory does not know get their rows: by one process, in steps, again and again."""

import math

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import OperationalError, connection

from chat.tests.plan_support import MEMORIES, reads_of
from retrieval.backfill import fill_words
from retrieval.backfill.claims import CLAIM_S, Claims
from retrieval.backfill.missing_rows import MissingRows
from retrieval.models import message_tables
from retrieval.schema.locks import BACKFILL_LOCK
from retrieval.tests.backfill_support import CHAT, PASSAGE, add_messages, query, texts
from tests.support import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
KNOWN = "SELECT id >> 1 FROM message_memories ORDER BY id"


@pytest.fixture
def unknown(alice: User, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Ids of five messages that memory does not know; each step looks at two."""
    monkeypatch.setattr(fill_words, "BATCH_ROWS", 2)
    ids = add_messages(alice, texts(5))
    query("DELETE FROM message_memories")
    return ids


def missing_rows(*, table: str | None = None) -> MissingRows:
    tables = [each for each in message_tables() if table in (None, each.table)]
    return MissingRows(tables, Claims())


def at_once(missing: MissingRows) -> MissingRows:
    """As if the time had come to look again."""
    missing._next_at = -math.inf
    return missing


def test_rows_are_filled_in_steps(unknown: list[int]) -> None:
    missing = missing_rows()
    assert [missing.fill_next() for _ in range(5)] == [2, 2, 1, None, None]
    assert query(KNOWN) == [(pk,) for pk in unknown]


def test_a_row_that_is_lost_later_is_filled_by_the_next_look(unknown: list[int]) -> None:
    missing = missing_rows()
    while missing.fill_next() is not None:
        pass
    query("DELETE FROM message_memories WHERE id >> 1 = %s", unknown[-1])
    assert reads_of(missing.fill_next).of(*MEMORIES) == 0
    at_once(missing)
    assert [missing.fill_next() for _ in range(4)] == [0, 0, 1, None]


def test_one_process_looks_at_a_table(unknown: list[int]) -> None:
    first, second = missing_rows(), missing_rows()
    assert first.fill_next() == 2
    assert second.fill_next() is None
    query("UPDATE embedding_claims SET until = now()")  # the first was killed CLAIM_S ago
    assert CLAIM_S < 60
    assert [at_once(second).fill_next() for _ in range(4)] == [0, 2, 1, None]


def test_a_process_of_one_table_leaves_the_other_to_others(unknown: list[int]) -> None:
    assert missing_rows(table=PASSAGE).fill_next() is None
    assert missing_rows().fill_next() == 2


def test_a_running_backfill_fills_the_rows_itself(unknown: list[int]) -> None:
    missing = missing_rows(table=CHAT)
    with psycopg.connect(database_url(connection)) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [BACKFILL_LOCK])
        assert missing.fill_next() is None
        session.execute("SELECT pg_advisory_unlock(%s)", [BACKFILL_LOCK])
        assert at_once(missing).fill_next() == 2
        backfill = session.execute("SELECT pg_try_advisory_lock(%s)", [BACKFILL_LOCK])
        assert backfill.fetchone() == (True,)


def test_after_a_lost_session_it_goes_on_where_it_was(unknown: list[int]) -> None:
    missing = missing_rows()
    assert missing.fill_next() == 2
    ((pid,),) = query("SELECT pg_backend_pid()")
    with psycopg.connect(database_url(connection), autocommit=True) as session:
        session.execute("SELECT pg_terminate_backend(%s, 10000)", [pid])
    with pytest.raises(OperationalError):
        missing.fill_next()
    connection.close()
    assert missing.fill_next() is None  # it waits
    query("DELETE FROM message_memories")
    assert [at_once(missing).fill_next() for _ in range(3)] == [2, 1, None]


def test_memory_that_is_there_again_is_filled_at_once(unknown: list[int]) -> None:
    missing = missing_rows()
    while missing.fill_next() is not None:
        pass
    query("DELETE FROM message_memories")
    missing.begin_again()
    assert missing.fill_next() == 2
