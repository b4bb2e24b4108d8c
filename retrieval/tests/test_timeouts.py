"""Statements of commands that read whole tables, under a role's statement_timeout."""

import threading
from collections.abc import Callable, Iterator

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from fake_openai import FakeOpenAI
from retrieval.backfill import fill_words, pending
from retrieval.backfill.estimate import estimate
from retrieval.models import message_tables
from retrieval.tests.backfill_support import CHAT, add_messages, query, run, texts
from tests.support import database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SOURCE = message_tables()[0]
HAS_WAITED = """
    SELECT EXISTS (SELECT FROM pg_locks WHERE pid = %s AND NOT granted
        AND waitstart < clock_timestamp() - interval '1500 ms')
"""


@pytest.fixture
def slow_table(alice: User, remembering: FakeOpenAI) -> Iterator[None]:
    """Our next statement on the table takes longer than the session's statement_timeout."""
    add_messages(alice, texts(3))
    query("SET statement_timeout = '1s'")
    ((pid,),) = query("SELECT pg_backend_pid()")
    stop = threading.Event()

    def release() -> None:
        while not stop.wait(0.05):
            row = session.execute(HAS_WAITED, [pid]).fetchone()
            if row and row[0]:
                break
        session.rollback()

    with psycopg.connect(database_url(connection)) as session:
        session.execute(f"LOCK TABLE {CHAT} IN ACCESS EXCLUSIVE MODE")
        thread = threading.Thread(target=release)
        thread.start()
        yield
        stop.set()
        thread.join()
    connection.close()


@pytest.mark.parametrize(
    "count",
    [
        lambda: pending.count(SOURCE, model=None).pending == 3,
        lambda: not fill_words.is_needed(SOURCE),
        lambda: estimate(exact=True).messages == 3,
        lambda: "3 pending" in run("--dry-run").out,
    ],
    ids=["pending", "is_needed", "estimate", "dry_run"],
)
def test_a_count_ends_whatever_the_timeout_and_leaves_it_as_it_was(
    count: Callable[[], bool], slow_table: None
) -> None:
    assert count()
    assert query("SHOW statement_timeout") == [("1s",)]
