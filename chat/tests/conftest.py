"""Shared fixtures: a chat, files to import, another database session."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import Permission, User
from django.db import connection
from django.test import Client
from pytest_django import DjangoDbBlocker
from rest_framework.test import APIClient

from chat.models import StandaloneChat
from chat.tests.admin_support import client_of
from chat.tests.old_programs import USERS, OldDatabase
from chat.tests.support import Api
from tests.databases import Database
from tests.support import database_url


@pytest.fixture
def chat(alice: User) -> StandaloneChat:
    """An empty chat of alice."""
    return StandaloneChat.objects.create(user=alice)


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Iterable[bytes]], str]:
    """Writes lines to a file and returns its path."""

    def write(lines: Iterable[bytes]) -> str:
        path = tmp_path / "messages.jsonl"
        with path.open("wb") as opened:
            opened.writelines(lines)
        return str(path)

    return write


@pytest.fixture
def other() -> Iterator[Any]:
    """Another database session, with a lock_timeout of a second."""
    with psycopg.connect(
        database_url(connection), autocommit=True, options="-c lock_timeout=1s"
    ) as session:
        yield session


@pytest.fixture(scope="session")
def users_database(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, worker_id: str
) -> Iterator[Database]:
    """A database with the tables of users, and alice and bob; tests copy it."""
    with django_db_blocker.unblock():
        database = Database(f"users_{worker_id}")
        database.migrate("auth")
        database.run(USERS)
        yield database
        database.drop()


@pytest.fixture
def old(
    users_database: Database, django_db_blocker: DjangoDbBlocker, worker_id: str
) -> Iterator[OldDatabase]:
    """A database in which a test creates the tables of an older program."""
    with django_db_blocker.unblock():
        database = OldDatabase(f"old_{worker_id}", users_database)
        yield database
        database.drop()


@pytest.fixture
def operator(db: None) -> Client:
    """Signed in as a superuser."""
    return client_of(User.objects.create(username="operator", is_staff=True, is_superuser=True))


@pytest.fixture
def blind_operator(db: None) -> Client:
    """Signed in with every permission but the one to see contents."""
    user = User.objects.create(username="blind", is_staff=True)
    user.user_permissions.set(Permission.objects.exclude(codename="view_content"))
    return client_of(user)


@pytest.fixture
def client(alice: User, api: Api) -> APIClient:
    """Alice's."""
    return api(alice)
