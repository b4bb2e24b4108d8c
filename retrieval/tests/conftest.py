"""Shared by the tests of the operator's commands."""

from collections.abc import Iterator
from typing import Any

import pytest

from retrieval.tests.doctor_support import Patient


@pytest.fixture(scope="session")
def doctors_database(
    django_db_setup: None, django_db_blocker: Any, worker_id: str
) -> Iterator[Patient]:
    """A database that faults are made in: migrated, with embedded messages of alice's and bob's."""
    with django_db_blocker.unblock():
        made = Patient(f"doctor_{worker_id}")
        made.leave()
        yield made
        made.drop()


@pytest.fixture
def patient(doctors_database: Patient, django_db_blocker: Any) -> Iterator[Patient]:
    """Django's connection leads to that database during the test."""
    with django_db_blocker.unblock():
        doctors_database.enter()
        yield doctors_database
        doctors_database.leave()
