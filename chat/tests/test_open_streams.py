"""Streams that are open when their token is revoked or their user deactivated."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import httpx2
import pytest
from django.contrib.auth.models import User
from pytest_django import DjangoDbBlocker

from chat.auth.api_tokens import create_token, find_token, revoke_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.support import Server, serve_test_database

pytestmark = pytest.mark.django_db(transaction=True)
LONG = Answer("word " * 1_200, tokens_per_s=20)  # a minute
EVENTS = {"Accept": "text/event-stream"}


@pytest.fixture(scope="module")
def two(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Two processes: a stream may be sent by another than the one that generates the answer."""
    settings = {"WEB_CONCURRENCY": "2", "EMBEDDINGS": "none"}
    yield from serve_test_database(django_db_blocker, openai_server, **settings)


def revoke(user: User, key: str) -> None:
    token = find_token(key)
    assert token is not None
    revoke_token(token, by=user)


def deactivate(user: User, key: str) -> None:
    User.objects.filter(pk=user.pk).update(is_active=False)


def opened(client: Any, address: str, **body: Any) -> httpx2.Response:
    """The response to a POST, or to a GET without a body, whose stream has begun."""
    method = "POST" if body else "GET"
    request = client.build_request(method, address, json=body or None, headers=EVENTS)
    return cast("httpx2.Response", client.send(request, stream=True))


def turn(client: Any, chat: StandaloneChat) -> httpx2.Response:
    return opened(client, f"/api/chats/{chat.pk}/messages/", content="Go on")


def completion(client: Any, _: StandaloneChat) -> httpx2.Response:
    client.headers["Authorization"] = client.headers["Authorization"].replace("Token", "Bearer")
    messages = [{"role": "user", "content": "Go on"}]
    return opened(client, "/v1/chat/completions", model="verse", messages=messages, stream=True)


def events(client: Any, chat: StandaloneChat) -> httpx2.Response:
    """The answer of another client's turn, rejoined."""
    answer = StandaloneChatMessage.objects.get(role="assistant")
    return opened(client, f"/api/chats/{chat.pk}/messages/{answer.pk}/events/")


@pytest.mark.parametrize(
    ("end_rights", "stream"), [(revoke, turn), (revoke, completion), (deactivate, events)]
)
def test_a_stream_ends_with_the_rights_it_was_opened_with(
    end_rights: Callable[[User, str], None],
    stream: Callable[[Any, StandaloneChat], httpx2.Response],
    two: Server,
    openai_server: FakeOpenAI,
    alice: User,
) -> None:
    openai_server.reset()
    openai_server.chat.default = LONG
    chat = StandaloneChat.objects.create(user=alice)
    if stream is events:
        turn(two.client(create_token(alice)[1]), chat)
    key = create_token(alice)[1]
    client = two.client(key)
    pieces = stream(client, chat).iter_text()
    assert next(piece for piece in pieces if "word" in piece)
    end_rights(alice, key)
    rest = "".join(pieces)
    assert "event: done" not in rest
    assert "[DONE]" not in rest
    assert client.get("/api/chats/").status_code == 401
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert answer.status == "streaming"  # the answer itself goes on
