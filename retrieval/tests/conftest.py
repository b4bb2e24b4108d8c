"""Shared fixtures: a fake embedding service, and a database for the doctor's tests."""

from collections.abc import Iterator
from typing import Any

import pytest
from pytest_django import Settings

from fake_openai import FakeOpenAI
from retrieval.tests.doctor_support import OLD_MEMORY, FaultyDatabase
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
def doctor_database(
    django_db_setup: None, django_db_blocker: Any, worker_id: str
) -> Iterator[FaultyDatabase]:
    """A migrated database with embedded messages of alice and bob, to make faults in."""
    with django_db_blocker.unblock():
        database = FaultyDatabase(f"doctor_{worker_id}")
        database.leave()
        yield database
        database.drop()


@pytest.fixture
def faulty(doctor_database: FaultyDatabase, django_db_blocker: Any) -> Iterator[FaultyDatabase]:
    """The database of the session, to which Django is connected during the test."""
    with django_db_blocker.unblock():
        doctor_database.enter()
        doctor_database.run(OLD_MEMORY)  # the fix of another test may have been to migrate
        yield doctor_database
        doctor_database.leave()
