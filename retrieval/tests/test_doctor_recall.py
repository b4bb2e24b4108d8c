"""rag_doctor measures recall: bad or slow recall is found and mended."""

from collections.abc import Iterator

import numpy as np
import pytest
from django.db import transaction
from pytest_django import Settings

from retrieval.doctor import check_recall
from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import TABLES, Patient, check_that_it_is_mended

pytestmark = [pytest.mark.newest_schema]
MANY_ROWS = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars)
    SELECT -2 * n, 0, -n, now(), true, '{}'::bigint[], 1 FROM generate_series(1, 40000) n
"""


@pytest.fixture
def many(patient: Patient) -> Iterator[None]:
    """More messages of a user than recall's candidates by meaning are."""
    last = {table: patient.run(f"SELECT max(id) FROM {table}")[0][0] for table in TABLES}
    patient.say(80)  # more than recall compares exactly
    for table in TABLES:  # those of the fake service are about nothing, and so near to nothing
        patient.run(f"UPDATE {table} SET embedding = NULL")
    patient.embed()
    yield
    for table, pk in last.items():
        patient.run(f"DELETE FROM {table} WHERE id > %s", pk)


@pytest.mark.usefixtures("many")
@pytest.mark.parametrize("name", ["criterion.3", "trap.5"])
def test_recall_that_is_measured_bad_is_mended(
    name: str, patient: Patient, settings: Settings
) -> None:
    assert patient.find(name).status is Status.PASS
    patient.run("UPDATE message_memories SET bits = ~bits")  # the nearest are the farthest now
    check_that_it_is_mended(patient, name, "WARN", settings)


@pytest.mark.usefixtures("many")
def test_recall_that_is_slow_is_mended(
    patient: Patient, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_recall, "MAX_MEASURE_S", 2.0)
    patient.run(MANY_ROWS)
    try:
        patient.run("DROP INDEX message_memories_turns, message_memories_terms")
        found = check_that_it_is_mended(patient, "criterion.4", "WARN", settings)
        assert "VACUUM" in found.fix
    finally:
        patient.run("DELETE FROM message_memories WHERE id < 0")
        patient.run("VACUUM message_memories")


def test_equal_texts_are_equally_near(patient: Patient) -> None:
    """Whichever five of twenty equal ones recall looks at, none is missed."""
    with transaction.atomic():
        vector = np.ones(1536, np.float32).tolist()
        patient.run("UPDATE chat_messages SET embedding = %s::real[]::vector", vector)
        found = patient.find("criterion.3")
        transaction.set_rollback(True)
    assert found.status is Status.PASS, found


def test_nothing_to_measure_is_no_pass(patient: Patient) -> None:
    with transaction.atomic():
        patient.run("DELETE FROM message_memories")
        found = [patient.find(name).status for name in ("criterion.3", "criterion.4", "trap.5")]
        transaction.set_rollback(True)
    assert found == [Status.SKIP] * 3


def test_measuring_ends_in_time(patient: Patient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_recall, "MAX_MEASURE_S", 0.0)
    assert patient.find("criterion.3").status is Status.SKIP
