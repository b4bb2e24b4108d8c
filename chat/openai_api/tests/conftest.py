"""A real server and OpenAI's own client for it."""

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from openai import OpenAI
from pytest_django import DjangoDbBlocker

from chat.auth.api_tokens import create_token
from chat.openai_api.tests.support import Bearer
from fake_openai import FakeOpenAI
from tests.support import PATIENCE_S, Server, memory_settings, serve_test_database

NewClient = Callable[..., OpenAI]


@pytest.fixture(scope="module")
def shared_server(
    openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker
) -> Iterator[Server]:
    """A server with memory for the tests of a file that need no settings of their own."""
    yield from serve_test_database(
        django_db_blocker, openai_server, **memory_settings(openai_server)
    )


@pytest.fixture
def verse(
    transactional_db: None, shared_server: Server, openai_server: FakeOpenAI
) -> Iterator[Server]:
    """The shared server, and the fake of its model's without behaviours and requests."""
    openai_server.reset()
    yield shared_server
    openai_server.reset()


@pytest.fixture
def client_of(verse: Server) -> Iterator[Callable[[User], OpenAI]]:
    """OpenAI's client, signed in as a user. It repeats no request."""
    clients: list[OpenAI] = []

    def client(user: User, **headers: str) -> OpenAI:
        clients.append(
            OpenAI(
                base_url=f"{verse.url}/v1",
                api_key=create_token(user)[1],
                max_retries=0,
                timeout=PATIENCE_S,
                default_headers=headers,
            )
        )
        return clients[-1]

    yield client
    for opened in clients:
        opened.close()


@pytest.fixture
def client(alice: User, client_of: Callable[[User], OpenAI]) -> OpenAI:
    """Alice's."""
    return client_of(alice)


@pytest.fixture
def bearer(alice: User, fake_openai: FakeOpenAI, unlimited: None) -> Bearer:
    """Alice's client of /v1 in this process."""
    return Bearer(alice)
