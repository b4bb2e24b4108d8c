"""rag_doctor on indexes and on locks: each fault is reported, and its printed fix works."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import FaultyDatabase, assert_fix_works
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.newest_schema]
BUILDING = "SELECT 1 FROM pg_stat_progress_create_index WHERE datname = current_database()"
WAITING = """
    SELECT 1 FROM pg_locks JOIN pg_stat_activity USING (pid)
    WHERE NOT granted AND datname = current_database()
"""
CHATS, PASSAGES = "idx_standalone_messages_embedding", "idx_chat_messages_embedding_user"
# As an interrupted build leaves it.
INVALID = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"
PIECE = f"CREATE INDEX {CHATS}_ccnew ON standalone_chat_messages (created_at); " + INVALID.format(
    f"{CHATS}_ccnew"
)
OTHER_DISTANCE = f"""
    DROP INDEX {PASSAGES};
    CREATE INDEX {PASSAGES} ON chat_messages USING hnsw (embedding vector_l2_ops)
"""
FAULTS = {
    "one is missing": ("checklist.5", "DROP INDEX idx_standalone_messages_embedding"),
    "one is missing, as trap": ("trap.14", f"DROP INDEX {PASSAGES}"),
    "one is missing in the view": ("trap.3", f"DROP INDEX {PASSAGES}"),
    "one is invalid": ("checklist.5", INVALID.format(PASSAGES)),
    "one is for another distance": (
        "checklist.5",
        OTHER_DISTANCE,
    ),
    "a rebuild was killed": ("checklist.5", PIECE),
    "one of the chat's is invalid": ("checklist.5", INVALID.format("chat_messages_in_order")),
    "one of recall's is missing": ("index.recall", "DROP INDEX message_memories_terms"),
    "one of recall's is invalid": ("index.recall", INVALID.format("message_memories_pending")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_printed_fix_works(fault: str, faulty: FaultyDatabase, settings: Settings) -> None:
    name, sql = FAULTS[fault]
    assert faulty.check(name).status is Status.PASS
    faulty.run(sql)
    assert_fix_works(faulty, name, "FAIL", settings)


@pytest.mark.parametrize("by_another_role", [False, True])
def test_an_index_under_construction_is_no_fault(
    by_another_role: bool, faulty: FaultyDatabase
) -> None:
    """CONCURRENTLY waits for open transactions; meanwhile the index is invalid."""
    with faulty.session() as held:
        held.execute("LOCK TABLE chat_messages IN ROW EXCLUSIVE MODE")
        other = threading.Thread(target=rebuild, args=(faulty.url,))
        other.start()
        wait_for(faulty, BUILDING)
        if by_another_role:
            with another_role(faulty):
                finding = faulty.check("checklist.5")
        else:
            finding = faulty.check("checklist.5")
        held.rollback()
    other.join()
    assert finding.status is Status.PASS, finding


@contextmanager
def another_role(faulty: FaultyDatabase) -> Iterator[None]:
    """Checks run as a role that may not see what the sessions of others do."""
    role = f"reader_of_{faulty.name}"
    faulty.run(f"DROP ROLE IF EXISTS {role}; CREATE ROLE {role} IN ROLE pg_read_all_data")
    faulty.run(f"SET ROLE {role}")
    try:
        yield
    finally:
        faulty.run(f"RESET ROLE; DROP ROLE {role}")


def wait_for(faulty: FaultyDatabase, rows: str) -> None:
    """Wait until the query returns a row."""
    end = time.monotonic() + PATIENCE_S
    while not faulty.run(rows):
        assert time.monotonic() < end, rows
        time.sleep(0.05)


def rebuild(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"REINDEX INDEX CONCURRENTLY {PASSAGES}")


def test_a_blocking_index_build_is_reported_and_ended(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    with faulty.session() as other:
        other.execute("CREATE INDEX by_hand ON chat_messages (role)")
        time.sleep(0.6)
        finding = assert_fix_works(faulty, "trap.8", "WARN", settings)
        assert f"process {other.info.backend_pid} holds the lock" in finding.detail


@pytest.mark.parametrize(("check", "mode"), [("trap.8", "SHARE"), ("trap.11", "ACCESS EXCLUSIVE")])
def test_a_lock_of_another_role_is_reported_without_its_age(
    check: str, mode: str, faulty: FaultyDatabase
) -> None:
    """Only members of pg_read_all_stats see since when another role's transaction is open."""
    with another_role(faulty), faulty.session() as other:
        other.execute(f"LOCK TABLE chat_messages IN {mode} MODE")
        pid = other.info.backend_pid
        finding = faulty.check(check)
    assert finding.status is Status.WARN
    assert f"process {pid} holds the lock, age unknown" in finding.detail


def test_a_blocking_table_change_is_reported_and_ended(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    with faulty.session() as reader:
        reader.execute("SELECT FROM chat_messages")
        ended: list[str] = []
        other = threading.Thread(target=alter, args=(faulty.url, ended))
        other.start()
        wait_for(faulty, WAITING)
        time.sleep(0.6)
        began = time.monotonic()
        behind = faulty.check("trap.1")
        waited_s = time.monotonic() - began
        finding = assert_fix_works(faulty, "trap.11", "WARN", settings)
        other.join()
    assert "waits for the lock" in finding.detail
    assert ended == ["AdminShutdown"]
    # Other checks wait a second behind it, then they report it.
    assert behind.status is Status.WARN
    assert "pg_locks" in behind.fix
    assert waited_s < 5


def alter(url: str, ended: list[str]) -> None:
    try:
        with psycopg.connect(url) as session:
            session.execute("ALTER TABLE chat_messages ADD COLUMN guide vector(1536)")
    except psycopg.Error as error:
        ended.append(type(error).__name__)


def test_a_blocking_index_drop_is_reported_and_ended(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    with faulty.session() as other:
        other.execute("DROP INDEX idx_standalone_messages_embedding")
        time.sleep(0.6)
        assert_fix_works(faulty, "trap.18", "WARN", settings)
    connection.close()
    assert faulty.check("checklist.5").status is Status.PASS


def test_an_unused_index_is_no_fault(faulty: FaultyDatabase) -> None:
    finding = faulty.check("trap.26")
    assert finding.status is Status.SKIP
    assert finding.detail.startswith("info: ")
    assert f"{CHATS} 0" in finding.detail
