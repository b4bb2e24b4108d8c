"""rag_doctor on messages and recall's rows: each fault is reported, its printed fix works."""

import pytest
from pytest_django import Settings

from chat.tests.transfer_support import imported, line
from retrieval import current_model
from retrieval.doctor.report import Status
from retrieval.schema import locks
from retrieval.tests.doctor_support import (
    MODEL,
    OLD_MEMORY,
    FaultyDatabase,
    assert_fix_works,
)

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
    "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at) SELECT "
    "user_id, id, 'user', 'Said long ago', now() - interval '{}' FROM standalone_chats LIMIT 1"
)
NEW_MEMORY = "UPDATE django_migrations SET applied = now()"
STRAYED = "UPDATE message_memories SET {} WHERE id < 8"
MODEL_IS = "UPDATE embedding_models SET name = '{}' WHERE current"
REFUSED = (
    SAID.format("1 minute")
    + "; UPDATE message_memories SET embedding_error = 'refused' WHERE model IS NULL"
)
VECTORLESS = WITHOUT_TRIGGERS.format("UPDATE chat_messages SET embedding = NULL")
FAULTS = {
    "recall does not know one": ("checklist.9", "WARN", UNKNOWN),
    "one is pending": ("checklist.9", "WARN", SAID.format("1 minute")),
    "one was refused": ("checklist.9", "WARN", REFUSED),
    "one waits for long": ("criterion.3", "FAIL", SAID.format("2 hours")),
    "one is another's": ("messages.owners", "FAIL", STRAYED.format("user_id = user_id + 1")),
    "one is in another conversation": (
        "messages.owners",
        "FAIL",
        STRAYED.format("conversation = 0"),
    ),
    "one is gone": ("messages.gone", "FAIL", DELETED),
    "vectors are gone": ("messages.vectors", "FAIL", VECTORLESS),
    "another model's": ("embedding.model", "FAIL", MODEL_IS.format("text-embedding-ada-002")),
    "the bundled model's": (
        "embedding.model",
        "FAIL",
        MODEL_IS.format("local:all-MiniLM-L6-v2-int8"),
    ),
    "a dump was run into it": (
        "trap.9",
        "FAIL",
        "SELECT setval(pg_get_serial_sequence('chat_messages', 'id'), 1)",
    ),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_the_printed_fix_works(fault: str, faulty: FaultyDatabase, settings: Settings) -> None:
    name, status, sql = FAULTS[fault]
    assert faulty.check(name).status is Status.PASS
    faulty.run(sql)
    finding = assert_fix_works(faulty, name, status, settings)
    assert "Secret number" not in finding.detail + finding.fix
    faulty.run("UPDATE embedding_models SET name = %s WHERE current", MODEL)


def test_vectors_of_another_size_fail(faulty: FaultyDatabase, settings: Settings) -> None:
    faulty.run("ALTER TABLE chat_messages DROP COLUMN embedding CASCADE")
    faulty.run("ALTER TABLE chat_messages ADD COLUMN embedding vector")
    faulty.run(
        "UPDATE chat_messages SET embedding = '[1,2]' "
        "WHERE id = (SELECT max(id) FROM chat_messages)"
    )
    finding = faulty.check("trap.1")
    assert finding.status is Status.FAIL
    faulty.apply_fix(finding, settings)
    assert faulty.check("trap.1").status is Status.PASS
    faulty.fix_all(settings)


def test_a_running_backfill_is_reported_and_excuses_old_messages(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run(SAID.format("2 hours"))
    with faulty.session() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.BACKFILL_LOCK])
        assert (
            f"backfill_embeddings (process {other.info.backend_pid}) runs now"
            in faulty.check("work.now").detail
        )
        assert faulty.check("criterion.3").status is Status.PASS
    with faulty.session() as other:
        other.execute("SELECT pg_advisory_lock(%s)", [locks.MIGRATE_LOCK])
        assert "migrate or rag_index (process" in faulty.check("work.now").detail
    assert_fix_works(faulty, "criterion.3", "FAIL", settings)


NOT_TO_BE_EMBEDDED = {
    "set aside": "UPDATE message_memories SET embedding_error = 'refused' WHERE model IS NULL",
    "switched off": (
        "INSERT INTO memory_switches (user_id, enabled, changed_at) "
        "SELECT user_id, false, now() FROM standalone_chats LIMIT 1"
    ),
    "in a chat without memory": "UPDATE standalone_chats SET memory = false",
}


@pytest.mark.parametrize("case", NOT_TO_BE_EMBEDDED)
def test_an_old_message_that_nothing_should_embed_passes(
    case: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run(SAID.format("2 hours"))
    assert faulty.check("criterion.3").status is Status.FAIL
    faulty.run(NOT_TO_BE_EMBEDDED[case])
    assert faulty.check("criterion.3").status is Status.PASS
    faulty.run("DELETE FROM memory_switches; UPDATE standalone_chats SET memory = true")
    settings.OPENAI_API_KEY = ""
    assert faulty.check("criterion.3").status is Status.SKIP
    faulty.run("DELETE FROM standalone_chat_messages WHERE content = 'Said long ago'")


def test_messages_from_before_memory_wait_since_its_migrations(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    """Also after the backfill has made them known to recall, as --limit leaves them."""
    faulty.run(NEW_MEMORY)
    faulty.run(UNKNOWN.replace("now()", "now() - interval '1 year'"))
    faulty.run(SAID.format("1 year"))
    waiting = faulty.check("criterion.3")
    assert waiting.status is Status.PASS, waiting
    older = "UPDATE django_migrations SET applied = applied - interval '2 hours'"
    faulty.run(older)
    finding = assert_fix_works(faulty, "criterion.3", "FAIL", settings)
    assert finding.detail == (
        "the oldest pending message has waited 2.0 hours, and no backfill runs"
    )
    faulty.run(OLD_MEMORY)


def test_imported_messages_wait_since_their_import(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    old = line(user="newcomer", created_at="2024-05-03T10:00:00Z")
    assert imported(old, create_users=True).messages == 1
    assert faulty.check("criterion.3").status is Status.PASS
    faulty.run("UPDATE rate_windows SET hits = ARRAY[hits[1] - interval '2 hours']")
    assert_fix_works(faulty, "criterion.3", "FAIL", settings)


def test_messages_of_a_user_who_turned_memory_on_wait_since_then(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run(SAID.format("2 hours"))
    faulty.run(
        "INSERT INTO memory_switches (user_id, enabled, changed_at) "
        "SELECT user_id, true, now() FROM standalone_chats LIMIT 1"
    )
    assert faulty.check("criterion.3").status is Status.PASS
    faulty.run("UPDATE memory_switches SET changed_at = now() - interval '2 hours'")
    assert_fix_works(faulty, "criterion.3", "FAIL", settings)
    faulty.run("DELETE FROM memory_switches")


def test_after_a_switch_of_the_model_no_message_waits_for_long(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run("UPDATE standalone_chat_messages SET created_at = created_at - interval '1 day'")
    current_model.switch("text-embedding-3-large")
    settings.EMBEDDING_MODEL = "text-embedding-3-large"
    assert faulty.check("criterion.3").status is Status.PASS
    assert "pending" in faulty.check("checklist.9").detail
    current_model.switch(MODEL)
    faulty.run("UPDATE standalone_chat_messages SET created_at = created_at + interval '1 day'")


def test_with_another_model_the_fix_names_the_setting_first(
    faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run(SAID.format("2 hours"))
    faulty.run(MODEL_IS.format("text-embedding-ada-002"))
    finding = assert_fix_works(faulty, "criterion.3", "FAIL", settings)
    assert "EMBEDDING_MODEL=text-embedding-ada-002" in finding.fix
    faulty.run("UPDATE embedding_models SET name = %s WHERE current", MODEL)
