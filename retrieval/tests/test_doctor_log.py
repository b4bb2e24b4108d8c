"""rag_doctor on the errors that the servers logged."""

import pytest

from retrieval.doctor.report import Status
from retrieval.log_counts import STARTED
from retrieval.tests.doctor_support import FaultyDatabase

START = "INSERT INTO log_counts VALUES (date_trunc('minute', now()), %s, true, 1)"
pytestmark = [pytest.mark.newest_schema, pytest.mark.usefixtures("remembering")]


@pytest.fixture(autouse=True)
def started(faulty: FaultyDatabase) -> None:
    """One start is counted, and no error."""
    faulty.run("DELETE FROM log_counts")
    faulty.run(START, STARTED)


ADD = "INSERT INTO log_counts VALUES (now() - interval %s, %s, %s, 2)"


@pytest.mark.parametrize("name", ["criterion.5", "checklist.8"])
def test_the_doctor_warns_of_errors_of_the_last_day(name: str, faulty: FaultyDatabase) -> None:
    assert faulty.check(name).status is Status.PASS
    faulty.run(ADD, "2 hours", "Database unavailable: …", False)
    faulty.run(ADD, "2 minutes", "django.request", False)
    finding = faulty.check(name)
    assert finding.status is Status.WARN
    assert finding.detail == (
        "last hour: 2 django.request; last day: 2 Database unavailable: …, 2 django.request"
    )
    faulty.run("UPDATE log_counts SET minute = minute - interval '1 day' WHERE NOT at_start")
    assert faulty.check(name).status is Status.PASS
    faulty.run("DELETE FROM log_counts WHERE NOT at_start")


def test_the_doctor_warns_of_errors_of_the_last_start_alone(faulty: FaultyDatabase) -> None:
    assert faulty.check("criterion.1").status is Status.PASS
    faulty.run(ADD, "2 hours", "An earlier start failed", True)
    faulty.run(ADD, "0 s", "A later error", False)
    assert faulty.check("criterion.1").status is Status.PASS
    faulty.run(ADD, "0 s", "Database unavailable: …", True)
    finding = faulty.check("criterion.1")
    assert finding.status is Status.WARN
    assert "logged errors: 2 Database unavailable: …" in finding.detail
    faulty.run("DELETE FROM log_counts WHERE kind <> %s", STARTED)
    faulty.run("UPDATE log_counts SET minute = minute + interval '1 s'")  # the next start
    assert faulty.check("criterion.1").status is Status.PASS


def test_without_a_counted_start_nothing_passes(faulty: FaultyDatabase) -> None:
    faulty.run("UPDATE log_counts SET kind = 'x', minute = minute - interval '9 days'")
    names = ("criterion.1", "criterion.5")
    assert [faulty.check(name).status for name in names] == [Status.SKIP] * 2
    faulty.run("UPDATE log_counts SET kind = %s", STARTED)
