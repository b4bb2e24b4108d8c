"""rag_doctor on messages and on what recall knows of them: each fault is found and mended."""

import pytest
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.schema import locks
from retrieval.tests.doctor_support import MODEL, Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]
WITHOUT_TRIGGERS = (
    "SET session_replication_role = replica; {}; SET session_replication_role = origin"
)
DELETED = WITHOUT_TRIGGERS.format(
    "DELETE FROM chat_messages WHERE id IN (SELECT max(id) FROM chat_messages)"
)
UNKNOWN = WITHOUT_TRIGGERS.format(
    "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at) "
    "SELECT user_id, id, 'user', 'Unknown to recall', now() FROM standalone_chats LIMIT 1"
)
SAID = (
    "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at) "
    "SELECT user_id, id, 'user', 'Said long ago', now() - interval '{}' FROM standalone_chats LIMIT 1"
)
STRAYED = "UPDATE message_memories SET {} WHERE id < 8"
MODEL_IS = "UPDATE embedding_models SET name = '{}' WHERE current"
REFUSED = (
    SAID.format("1 minute")
    + "; UPDATE message_memories SET embedding_error = 'refused' WHERE model IS NULL"
)
VECTORLESS = WITHOUT_TRIGGERS.format("UPDATE chat_messages SET embedding = NULL")
FAULTS = {
    "recall does not know one": ("criterion.1", "WARN", UNKNOWN),
    "one is pending": ("criterion.1", "WARN", SAID.format("1 minute")),
    "one was refused": ("criterion.1", "WARN", REFUSED),
    "one waits for long": ("criterion.2", "WARN", SAID.format("2 hours")),
    "one is another's": ("criterion.5", "FAIL", STRAYED.format("user_id = user_id + 1")),
    "one is in another conversation": ("criterion.5", "FAIL", STRAYED.format("conversation = 0")),
    "one is gone": ("messages.gone", "FAIL", DELETED),
    "vectors are gone": ("messages.vectors", "FAIL", VECTORLESS),
    "another model's": ("checklist.8", "FAIL", MODEL_IS.format("text-embedding-ada-002")),
    "the bundled model's": ("checklist.8", "FAIL", MODEL_IS.format("local:all-MiniLM-L6-v2-int8")),
    "a dump was run into it": (
        "trap.9",
        "FAIL",
        "SELECT setval(pg_get_serial_sequence('chat_messages', 'id'), 1)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_fix_mends(fault: str, patient: Patient, settings: Settings) -> None:
    name, status, sql = FAULTS[fault]
    assert patient.find(name).status is Status.PASS
    patient.run(sql)
    found = check_that_it_is_mended(patient, name, status, settings)
    assert "Secret number" not in found.detail + found.fix
    patient.run("UPDATE embedding_models SET name = %s WHERE current", MODEL)


def test_vectors_of_another_size_are_found(patient: Patient, settings: Settings) -> None:
    patient.run("ALTER TABLE chat_messages DROP COLUMN embedding CASCADE")
    patient.run("ALTER TABLE chat_messages ADD COLUMN embedding vector")
    patient.run(
        "UPDATE chat_messages SET embedding = '[1,2]' WHERE id = (SELECT max(id) FROM chat_messages)"
    )
    found = patient.find("trap.1")
    assert found.status is Status.FAIL
    patient.mend(found, settings)
    assert patient.find("trap.1").status is Status.PASS
    patient.mend_all(settings)


def test_a_backfill_at_work_is_told_and_excuses_what_waits(
    patient: Patient, settings: Settings
) -> None:
    patient.run(SAID.format("2 hours"))
    with patient.session() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.BACKFILL_LOCK])
        assert (
            f"backfill_embeddings (process {other.info.backend_pid}) runs now"
            in patient.find("work.now").detail
        )
        assert patient.find("criterion.2").status is Status.PASS
    with patient.session() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.MIGRATE_LOCK])
        assert "migrate (process" in patient.find("work.now").detail
    check_that_it_is_mended(patient, "criterion.2", "WARN", settings)
