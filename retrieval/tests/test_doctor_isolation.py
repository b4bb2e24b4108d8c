"""rag_doctor --isolation: it reports a leak between users, and leaves nothing behind."""

import pytest
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import FaultyDatabase, assert_fix_works

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]
NAME = "isolation.canaries"
COUNTS = """
    SELECT (SELECT count(*) FROM auth_user), (SELECT count(*) FROM chat_messages),
        (SELECT count(*) FROM passages), (SELECT count(*) FROM standalone_chat_messages),
        (SELECT count(*) FROM message_memories)
"""
# The function by which message_memories follows, as a careless hand might change it.
DEFINITION = "SELECT pg_get_functiondef('standalone_chat_messages_memory_insert'::regproc)"


def test_a_healthy_database_passes_and_keeps_nothing(faulty: FaultyDatabase) -> None:
    before = faulty.run(COUNTS)
    finding = faulty.check(NAME, "isolation")
    assert finding.status is Status.PASS, finding
    assert "2 live users" in finding.detail
    assert faulty.run(COUNTS) == before


@pytest.mark.parametrize(
    "wrong", ["(SELECT min(id) FROM public.auth_user)", "m.user_id + 1", "m.user_id - 1"]
)
def test_messages_recalled_for_another_user_fail(
    wrong: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    faulty.run("SELECT set_config('check_function_bodies', 'off', false)")
    faulty.run(
        faulty.run(DEFINITION)[0][0].replace('m.user_id, m."chat_id"', f'{wrong}, m."chat_id"')
    )
    finding = assert_fix_works(faulty, NAME, "FAIL", settings, "isolation")
    assert "FUNCTION" in finding.fix
    assert "Secret" not in finding.detail + finding.fix


def test_without_own_messages_nothing_is_proved(faulty: FaultyDatabase, settings: Settings) -> None:
    faulty.run("ALTER TABLE chat_messages DISABLE TRIGGER USER")
    finding = faulty.check(NAME, "isolation")
    assert finding.status is Status.WARN
    faulty.apply_fix(faulty.check("checklist.5"), settings)
    assert faulty.check(NAME, "isolation").status is Status.PASS


def test_it_is_skipped_while_memory_is_off(faulty: FaultyDatabase, settings: Settings) -> None:
    settings.RAG_ENABLED = False
    assert faulty.check(NAME, "isolation").status is Status.SKIP
    assert faulty.check(NAME).fix == "python manage.py rag_doctor --isolation"
