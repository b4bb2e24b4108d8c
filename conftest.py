"""Shared fixtures: alice and bob, the fake OpenAI, an API client, a real server, a database."""

import math
import os
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from django.apps import apps
from django.contrib.auth.hashers import make_password
from django.contrib.auth.models import Permission, User
from django.contrib.contenttypes.models import ContentType
from django.core.management import call_command
from django.db import connection
from django.test import TransactionTestCase
from pytest_django import DjangoDbBlocker, Settings
from rest_framework.test import APIClient
from xdist.scheduler import LoadScopeScheduling

from chat.answers import heartbeat, periodic, runner, server_ways
from chat.auth.api_tokens import create_token
from chat.conflicts import repeat_after_conflict
from chat.memory.embed import finish_embedding_jobs
from fake_openai import FakeOpenAI
from retrieval import event_loop, runtime
from retrieval.models import SearchConfig
from tests.browser import chromium
from tests.databases import Database, drop_templates
from tests.support import Server, database_url

pytest_plugins = ["tests.leftovers"]
# No commit waits for the disk; only tests of the embedded server itself kill PostgreSQL.
os.environ.setdefault("PGOPTIONS", "-c synchronous_commit=off")
# Between two tests nothing may touch the database; real servers keep their periodic tasks.
periodic.PERIODIC_TASKS.clear()
heartbeat.END_ABANDONED_EVERY_S = math.inf


# Files whose tests must not run at the same time, by the beginning of their names: the doctor's
# tests break the whole PostgreSQL server, and two bundled models would compete for the processor.
GROUPS = {
    "retrieval/tests/test_doctor_": "doctor",
    "chat/tests/test_verify_backup": "backup",
    "tests/test_demo": "models",
    "tests/test_samples": "models",
    # The roles of these two belong to the whole server, and have the same names.
    "tests/test_compose_roles": "roles",
    "tests/test_image": "roles",
    # All tests of each share a server, or a database that takes seconds to fill.
    "tests/browser/": "browser",
    "tests/cluster/": "cluster",
    "tests/test_docs.py": "docs",
    "tests/test_mcp": "mcp",
    "chat/tests/test_open_streams": "open streams",
    "tests/test_roles": "web roles",
    "tests/test_memory_schema": "memory schema",
    "retrieval/tests/test_rag_index": "rag_index",
    "chat/openai_api/tests/test_completions": "completions",
    "chat/openai_api/tests/test_server": "completions",
}


class GroupScheduling(LoadScopeScheduling):  # type: ignore[misc]
    """Sends each test to any free worker, but the tests of a group to the same worker."""

    def _split_scope(self, nodeid: str) -> str:
        groups = (group for start, group in GROUPS.items() if nodeid.startswith(start))
        return next(groups, nodeid)


# Not `--dist loadgroup`: pytest-xdist 3.8 appends the group to Item._nodeid, but pytest 9.2 reads
# Item._id, so xdist_group marks have no effect.
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> GroupScheduling:
    """The scheduler for ``--numprocesses``."""
    return GroupScheduling(config, log)


def pytest_report_header() -> str | None:
    """Says so if the browser tests are left out."""
    return chromium.MISSING if chromium.is_left_out() else None


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --oldest-schema: run the chat's tests on the schema of the first migration."""
    parser.addoption(
        "--oldest-schema",
        action="store_true",
        help="test on chat 0001_initial, without memory's tests",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """On the oldest schema, skip tests of memory and tests with a database of their own."""
    if config.getoption("oldest_schema"):
        needs = {"remembering", "database"}
        items[:] = [
            item
            for item in items
            if not needs & set(getattr(item, "fixturenames", ()))
            and not item.get_closest_marker("newest_schema")
        ]


@pytest.fixture(scope="session")
def django_db_setup(
    request: pytest.FixtureRequest, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> None:
    """The test database at the latest migration, or at the chat's first."""
    if request.config.getoption("oldest_schema"):
        with django_db_blocker.unblock():
            call_command("migrate", "chat", "0001_initial", verbosity=0)


@pytest.fixture(scope="session")
def openai_server(django_db_setup: None) -> Iterator[FakeOpenAI]:
    """A fake server for the session, because the product keeps a client for its lifetime.

    The product's event loop ends before the database is deleted.
    """
    with FakeOpenAI() as fake:
        yield fake
    if runner.runner.cache_info().currsize:
        event_loop.start(runner.drain(0)).result()
        runner.runner().close()


@pytest.fixture(autouse=True, scope="session")
def quick_flush() -> Iterator[None]:
    """Empty tables after transactional tests by DELETE (2 ms) instead of TRUNCATE (130 ms)."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransactionTestCase, "_fixture_teardown", lambda _case: delete_all_rows())
        yield


@repeat_after_conflict
def delete_all_rows() -> None:
    """Empty every table, except those that migrations fill.

    A server that several tests share may write at the same moment: a deadlock.
    """
    seeded = (Permission, ContentType, SearchConfig)
    tables = {model._meta.db_table for model in apps.get_models() if model not in seeded}
    with connection.cursor() as cursor:
        known = sorted(tables & set(connection.introspection.table_names(cursor)))
        # The role replica disables triggers and foreign keys, so the order does not matter.
        cursor.execute("SET session_replication_role = replica")
        cursor.execute(";".join(f'DELETE FROM "{table}"' for table in known))
        cursor.execute("SET session_replication_role = origin")


@pytest.fixture
def fake_openai(openai_server: FakeOpenAI, settings: Settings) -> Iterator[FakeOpenAI]:
    """The fake server without behaviours and requests, and settings that use it."""
    openai_server.reset()
    server_ways._ways.clear()  # what was learned of a server: all tests have the same one
    settings.LLM = "openai"
    settings.LLM_BASE_URL = openai_server.base_url
    settings.LLM_CONFIGURED = True
    yield openai_server
    openai_server.reset()


@pytest.fixture
def remembering(fake_openai: FakeOpenAI, settings: Settings) -> Iterator[FakeOpenAI]:
    """Memory is on: settings with a key that use the fake server for embeddings too."""
    settings.OPENAI_BASE_URL = fake_openai.base_url
    settings.OPENAI_API_KEY = "sk-test-0123456789"
    settings.EMBEDDING_TIMEOUT_S, settings.RAG_TIMEOUT_S = 10, 30  # long: the machine may be busy
    runtime.reset()
    yield fake_openai
    finish_embedding_jobs()
    runtime.reset()


@pytest.fixture
def unlimited(settings: Settings) -> None:
    """No limit of messages per minute."""
    settings.THROTTLE_MESSAGES = None


@cache
def hashed(password: str) -> str:
    """The password's hash. Cached, because hashing takes 0.3 s on purpose."""
    return make_password(password)


@pytest.fixture
def alice(db: None) -> User:
    """The user of most tests."""
    return User.objects.create(username="alice", password=hashed("alice's password"))


@pytest.fixture
def bob(db: None) -> User:
    """Another user, who must never see data of alice."""
    return User.objects.create(username="bob", password=hashed("bob's password"))


@pytest.fixture
def api() -> Callable[[User], APIClient]:
    """Creates an API client with a user's token."""

    def client_of(user: User) -> APIClient:
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Token {create_token(user)[1]}")
        return client

    return client_of


@pytest.fixture
def server(transactional_db: None, openai_server: FakeOpenAI) -> Iterator[Callable[..., Server]]:
    """Starts real servers on the test's database: ``server(WEB_CONCURRENCY="2")``.

    They are ended after the test.
    """
    started: list[Server] = []

    def start(**environment: Any) -> Server:
        usual = {"DATABASE_URL": database_url(connection), "LLM_BASE_URL": openai_server.base_url}
        started.append(Server(usual | environment))
        return started[-1]

    openai_server.reset()
    yield start
    for running in started:
        running.end()
    openai_server.reset()


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any, worker_id: str) -> Iterator[Database]:
    """A separate, empty database."""
    with django_db_blocker.unblock():
        empty = Database(f"rollout_{worker_id}")
        yield empty
        empty.drop()


@pytest.fixture(autouse=True, scope="session")
def copied_databases(django_db_blocker: DjangoDbBlocker) -> Iterator[None]:
    """Deletes the databases that ``Database.start_at`` copies."""
    yield
    with django_db_blocker.unblock():
        drop_templates()
