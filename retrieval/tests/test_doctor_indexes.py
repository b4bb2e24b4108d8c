"""rag_doctor on indexes, and on locks that somebody holds: each fault is found and mended."""

import threading
import time

import psycopg
import pytest
from django.db import connection
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema]
CHATS, PASSAGES = "idx_standalone_messages_embedding", "idx_chat_messages_embedding_user"
INVALID = "UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{}'::regclass"  # as a build that was killed
PIECE = f"CREATE INDEX {CHATS}_ccnew ON standalone_chat_messages (created_at); " + INVALID.format(
    f"{CHATS}_ccnew"
)
FAULTS = {
    "one is missing": ("checklist.4", f"DROP INDEX {CHATS}"),
    "one is missing, as trap": ("trap.14", f"DROP INDEX {PASSAGES}"),
    "one is missing in the view": ("trap.3", f"DROP INDEX {PASSAGES}"),
    "one is invalid": ("checklist.4", INVALID.format(PASSAGES)),
    "one is for another distance": (
        "checklist.4",
        f"DROP INDEX {PASSAGES}; CREATE INDEX {PASSAGES} ON chat_messages USING hnsw (embedding vector_l2_ops)",
    ),
    "a rebuild was killed": ("checklist.4", PIECE),
    "one of the chat's is invalid": ("checklist.4", INVALID.format("chat_messages_in_order")),
    "one of recall's is missing": ("index.recall", "DROP INDEX message_memories_terms"),
    "one of recall's is invalid": ("index.recall", INVALID.format("message_memories_pending")),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fix_mends(fault: str, patient: Patient, settings: Settings) -> None:
    name, sql = FAULTS[fault]
    assert patient.find(name).status is Status.PASS
    patient.run(sql)
    check_that_it_is_mended(patient, name, "FAIL", settings)


def test_an_index_that_is_being_built_is_no_fault(patient: Patient) -> None:
    """CONCURRENTLY waits for a transaction that is open; meanwhile its index is invalid."""
    with patient.session() as held:
        held.execute("LOCK TABLE chat_messages IN ROW EXCLUSIVE MODE")
        other = threading.Thread(target=rebuild, args=(patient.url,))
        other.start()
        until = time.monotonic() + 20
        while (
            not patient.run("SELECT 1 FROM pg_stat_progress_create_index")
            and time.monotonic() < until
        ):
            time.sleep(0.05)
        found = patient.find("checklist.4")
        held.rollback()
    other.join()
    assert found.status is Status.PASS, found


def rebuild(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as session:
        session.execute(f"REINDEX INDEX CONCURRENTLY {PASSAGES}")


def test_an_index_built_the_hard_way_is_told_and_ended(
    patient: Patient, settings: Settings
) -> None:
    with patient.session() as other:
        other.execute("CREATE INDEX by_hand ON chat_messages (role)")
        time.sleep(0.6)
        found = check_that_it_is_mended(patient, "trap.8", "WARN", settings)
        assert f"process {other.info.backend_pid} holds the lock" in found.detail


def test_a_change_that_everybody_waits_behind_is_told_and_ended(
    patient: Patient, settings: Settings
) -> None:
    with patient.session() as reader:
        reader.execute("SELECT FROM chat_messages")
        ended: list[str] = []
        other = threading.Thread(target=alter, args=(patient.url, ended))
        other.start()
        until = time.monotonic() + 20
        while (
            not patient.run("SELECT 1 FROM pg_locks WHERE NOT granted") and time.monotonic() < until
        ):
            time.sleep(0.05)
        time.sleep(0.6)
        began = time.monotonic()
        behind = patient.find("trap.1")
        waited_s = time.monotonic() - began
        found = check_that_it_is_mended(patient, "trap.11", "WARN", settings)
        other.join()
    assert "waits for the lock" in found.detail
    assert ended == ["AdminShutdown"]
    # The others do not wait with everybody: a second, then they say so.
    assert behind.status is Status.WARN
    assert "pg_locks" in behind.fix
    assert waited_s < 5


def alter(url: str, ended: list[str]) -> None:
    try:
        with psycopg.connect(url) as session:
            session.execute("ALTER TABLE chat_messages ADD COLUMN guide vector(1536)")
    except psycopg.Error as error:
        ended.append(type(error).__name__)


def test_an_index_dropped_the_hard_way_is_told_and_ended(
    patient: Patient, settings: Settings
) -> None:
    with patient.session() as other:
        other.execute(f"DROP INDEX {CHATS}")
        time.sleep(0.6)
        check_that_it_is_mended(patient, "trap.18", "WARN", settings)
    connection.close()
    assert patient.find("checklist.4").status is Status.PASS


def test_an_index_that_is_never_used_is_no_fault(patient: Patient) -> None:
    found = patient.find("trap.26")
    assert found.status is Status.SKIP
    assert found.detail.startswith("info: ")
    assert f"{CHATS} 0" in found.detail
