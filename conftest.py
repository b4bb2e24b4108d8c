"""Shared by all tests: alice and bob, the fake OpenAI, an API client, a real server in processes of its own."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings
from rest_framework.test import APIClient

from chat import running
from chat.tokens import create_token
from fake_openai import FakeOpenAI
from tests.support import Server, database_url


@pytest.fixture(scope="session")
def openai_server(django_db_setup: None) -> Iterator[FakeOpenAI]:
    """One fake for the session: the product keeps one client a process, and one loop, ended before the database."""
    with FakeOpenAI() as fake:
        yield fake
    if running.answers.cache_info().currsize:
        running.drain(0)
        running.answers().close()


@pytest.fixture
def fake_openai(openai_server: FakeOpenAI, settings: Settings) -> Iterator[FakeOpenAI]:
    """The fake, well-behaved, with nothing recorded, and the settings that lead to it."""
    openai_server.reset()
    settings.LLM = "openai"
    settings.LLM_BASE_URL = openai_server.base_url
    settings.LLM_CONFIGURED = True
    yield openai_server
    openai_server.reset()


@pytest.fixture
def alice(db: None) -> User:
    """A user."""
    return User.objects.create_user("alice", password="alice's password")


@pytest.fixture
def bob(db: None) -> User:
    """Another user, who must never see what is alice's."""
    return User.objects.create_user("bob", password="bob's password")


@pytest.fixture
def api() -> Callable[[User], APIClient]:
    """A client of the API, signed in by a token."""

    def client_of(user: User) -> APIClient:
        client = APIClient(raise_request_exception=False)
        client.credentials(HTTP_AUTHORIZATION=f"Token {create_token(user)[1]}")
        return client

    return client_of


@pytest.fixture
def server(transactional_db: None, openai_server: FakeOpenAI) -> Iterator[Callable[..., Server]]:
    """Starts real servers on the test's database: ``server(WEB_CONCURRENCY="2")``; all are ended afterwards."""
    started: list[Server] = []

    def start(**environment: Any) -> Server:
        usual = {"DATABASE_URL": database_url(connection), "LLM_BASE_URL": openai_server.base_url}
        started.append(Server(usual | environment))
        return started[-1]

    openai_server.reset()
    yield start
    for one in started:
        one.end()
    openai_server.reset()
