"""rag_doctor --isolation: two users who are there for it only; a leak is found and mended, nothing is left behind."""

import pytest
from pytest_django import Settings

from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]
NAME = "isolation.canaries"
COUNTS = """
    SELECT (SELECT count(*) FROM auth_user), (SELECT count(*) FROM chat_messages), (SELECT count(*) FROM passages),
        (SELECT count(*) FROM standalone_chat_messages), (SELECT count(*) FROM message_memories)
"""
# The function by which recall's table follows, as a careless hand might change it.
DEFINITION = "SELECT pg_get_functiondef('standalone_chat_messages_memory_insert'::regproc)"


def test_on_a_healthy_database_none_is_seen_and_nothing_is_left(patient: Patient) -> None:
    before = patient.run(COUNTS)
    found = patient.find(NAME, "isolation")
    assert found.status is Status.PASS, found
    assert "2 live users" in found.detail
    assert patient.run(COUNTS) == before


@pytest.mark.parametrize(
    "wrong", ["(SELECT min(id) FROM public.auth_user)", "m.user_id + 1", "m.user_id - 1"]
)
def test_messages_given_to_another_are_found(
    wrong: str, patient: Patient, settings: Settings
) -> None:
    patient.run("SELECT set_config('check_function_bodies', 'off', false)")
    patient.run(
        patient.run(DEFINITION)[0][0].replace('m.user_id, m."chat_id"', f'{wrong}, m."chat_id"')
    )
    found = check_that_it_is_mended(patient, NAME, "FAIL", settings, "isolation")
    assert "FUNCTION" in found.fix
    assert "Secret" not in found.detail + found.fix


def test_a_user_s_own_that_is_not_recalled_proves_nothing(
    patient: Patient, settings: Settings
) -> None:
    patient.run("ALTER TABLE chat_messages DISABLE TRIGGER USER")
    found = patient.find(NAME, "isolation")
    assert found.status is Status.WARN
    patient.mend(patient.find("checklist.6"), settings)
    assert patient.find(NAME, "isolation").status is Status.PASS


def test_with_memory_off_there_is_nothing_to_try(patient: Patient, settings: Settings) -> None:
    settings.RAG_ENABLED = False
    assert patient.find(NAME, "isolation").status is Status.SKIP
    assert patient.find(NAME).fix == "python manage.py rag_doctor --isolation"
