"""Shared fixtures: a fake embedding service, and a database for the doctor's tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from fake_openai import FakeOpenAI
from retrieval.tests.doctor_support import Patient
from retrieval.tests.embedding_support import fresh, lead_to


@pytest.fixture(scope="session")
def embedding_server() -> Iterator[FakeOpenAI]:
    """A fake server for the session. Needs no database."""
    with FakeOpenAI() as server:
        yield server


@pytest.fixture
def fake(embedding_server: FakeOpenAI, settings: Settings) -> Iterator[FakeOpenAI]:
    """The fake server without behaviours and requests, and settings that use it."""
    lead_to(embedding_server, settings)
    with fresh(embedding_server):
        yield embedding_server


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
