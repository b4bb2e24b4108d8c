"""rag_doctor measures recall: wrong or slow recall is reported, and the printed fix works."""

from collections.abc import Iterator

import numpy as np
import pytest
from django.db import transaction
from pytest_django import Settings

from retrieval.doctor import check_recall
from retrieval.doctor.report import Status
from retrieval.tests.doctor_support import TABLES, FaultyDatabase, assert_fix_works

pytestmark = [pytest.mark.newest_schema]
MANY_ROWS = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars)
    SELECT -2 * n, 0, -n, now(), true, '{}'::bigint[], 1 FROM generate_series(1, 500000) n
"""


@pytest.fixture
def busy(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only exactness decides: the machine may be busy."""
    monkeypatch.setattr(check_recall, "MAX_P95_MS", 10_000.0)


@pytest.fixture
def many(faulty: FaultyDatabase) -> Iterator[None]:
    """More messages of each user than recall takes as candidates by meaning."""
    last = {table: faulty.run(f"SELECT max(id) FROM {table}")[0][0] for table in TABLES}
    faulty.add_messages(80)  # more than recall compares exactly
    for table in TABLES:  # those of the fake service are about nothing, and so near to nothing
        faulty.run(f"UPDATE {table} SET embedding = NULL")
    faulty.embed()
    yield
    for table, pk in last.items():
        faulty.run(f"DELETE FROM {table} WHERE id > %s", pk)


@pytest.mark.usefixtures("many", "busy")
@pytest.mark.parametrize("name", ["criterion.6", "trap.5"])
def test_inaccurate_recall_warns_and_is_fixed(
    name: str, faulty: FaultyDatabase, settings: Settings
) -> None:
    assert faulty.check(name).status is Status.PASS
    faulty.run("UPDATE message_memories SET bits = ~bits")  # the nearest are the farthest now
    assert_fix_works(faulty, name, "WARN", settings)


@pytest.mark.soak
@pytest.mark.usefixtures("many")
def test_slow_recall_warns_and_is_fixed(
    faulty: FaultyDatabase, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_recall, "MAX_MEASURE_S", 2.0)
    try:
        faulty.run("DROP INDEX message_memories_recall, message_memories_terms")
        faulty.run(MANY_ROWS)
        finding = assert_fix_works(faulty, "criterion.6", "WARN", settings)
        assert "VACUUM" in finding.fix
    finally:
        faulty.run("DELETE FROM message_memories WHERE id < 0")
        faulty.run("VACUUM message_memories")


@pytest.mark.usefixtures("busy")
def test_equal_texts_are_equally_near(faulty: FaultyDatabase) -> None:
    """Any five of twenty equal vectors are the nearest five."""
    with transaction.atomic():
        vector = np.ones(1536, np.float32).tolist()
        faulty.run("UPDATE chat_messages SET embedding = %s::real[]::vector", vector)
        finding = faulty.check("criterion.6")
        transaction.set_rollback(True)
    assert finding.status is Status.PASS, finding


def test_without_messages_nothing_passes(faulty: FaultyDatabase) -> None:
    with transaction.atomic():
        faulty.run("DELETE FROM message_memories")
        finding = [faulty.check(name).status for name in ("criterion.6", "criterion.6", "trap.5")]
        transaction.set_rollback(True)
    assert finding == [Status.SKIP] * 3


def test_the_measurement_ends_in_time(
    faulty: FaultyDatabase, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(check_recall, "MAX_MEASURE_S", 0.0)
    assert faulty.check("criterion.6").status is Status.SKIP
