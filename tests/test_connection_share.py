"""However many messages one user posts at once, others find a connection and the processor."""

import asyncio
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings

from chat.answers import long_messages
from chat.answers.long_messages import LONG_CHARS
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.services import ChatService
from fake_openai import Answer, FakeOpenAI, Vectors
from retrieval import connection_share, event_loop
from retrieval.queries import value
from tests.support import PATIENCE_S, Server, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
POOL, SHARE = 20, 2
POSTS = 12
COMPLETIONS = "/v1/chat/completions"
WAITING = """
    SELECT count(*) FROM pg_stat_activity
    WHERE datname = current_database() AND application_name LIKE 'verse %' AND state <> 'idle'
        AND wait_event_type = 'Lock'
"""


def question(text: str) -> dict[str, Any]:
    """The body of a request of /v1."""
    return {"model": "verse", "messages": [{"role": "user", "content": text}]}


def turn(api: str, chat: int, token: str) -> dict[str, Any]:
    """What posts a message to the chat."""
    if api == "/api":
        return {"url": f"/api/chats/{chat}/messages/", "json": {"content": "Hello"}}
    headers = {"Authorization": f"Bearer {token}", "X-Verse-Chat": str(chat)}
    return {"url": COMPLETIONS, "json": question("Hello"), "headers": headers}


@pytest.fixture
def operator() -> Iterator[psycopg.Connection[Any]]:
    """Another session, in which a test locks rows."""
    with psycopg.connect(database_url(connection)) as session:
        yield session


def count_waiting(expected: int) -> int:
    """How many of the server's sessions wait for a lock, once they are as many as expected."""
    until = time.monotonic() + PATIENCE_S
    while True:
        count = int(value(WAITING))
        if count >= expected or time.monotonic() > until:
            return count
        time.sleep(0.02)


@pytest.mark.parametrize("api", ["/api", "/v1"])
def test_a_users_turns_hold_a_tenth_of_the_connections(
    api: str,
    alice: User,
    bob: User,
    server: Callable[..., Server],
    operator: psycopg.Connection[Any],
) -> None:
    running = server(DATABASE_POOL_SIZE=str(POOL), STREAMS_PER_USER="100", THROTTLE_MESSAGES="off")
    chats = [StandaloneChat.objects.create(user=alice).pk for _ in range(POSTS)]
    other = StandaloneChat.objects.create(user=bob).pk
    token = create_token(alice)[1]
    client, bobs = running.client(token), running.client(create_token(bob)[1])
    assert client.get("/api/chats/").status_code == bobs.get("/api/chats/").status_code == 200
    # As a slow turn does: all others of the user wait for this row.
    operator.execute("SELECT FROM auth_user WHERE id = %s FOR UPDATE", [alice.pk])
    with ThreadPoolExecutor(POSTS) as pool:
        posts = [pool.submit(client.post, **turn(api, chat, token)) for chat in chats]
        assert count_waiting(SHARE) == SHARE
        time.sleep(0.2)  # for those that should not come
        assert count_waiting(SHARE) == SHARE
        answer = bobs.post(f"/api/chats/{other}/messages/", json={"content": "Hello"})
        assert answer.status_code == 201, answer.text
        operator.rollback()
        statuses = [post.result().status_code for post in posts]
        assert statuses == [201 if api == "/api" else 200] * POSTS
    assert "ERROR" not in running.log


def test_parallel_turns_of_v1_need_one_connection(
    alice: User, server: Callable[..., Server]
) -> None:
    running = server(DATABASE_POOL_SIZE="2", STREAMS_PER_USER="100", THROTTLE_MESSAGES="off")
    client = running.client(Authorization=f"Bearer {create_token(alice)[1]}")
    tools = {"tools": [{"type": "function", "function": {"name": "clock"}}]}
    replay: dict[str, Any] = {"json": question("Hello"), "headers": {"Idempotency-Key": "key"}}
    forms: list[dict[str, Any]] = [replay, replay]
    for text in ("One", "Two", "long " * LONG_CHARS, "longer " * LONG_CHARS):
        off = {"json": question(f"{text} off"), "headers": {"X-Verse-Memory": "off"}}
        forms += [{"json": question(text)}, {"json": question(f"{text} tools") | tools}, off]
    assert client.post(COMPLETIONS, **replay).status_code == 200
    with ThreadPoolExecutor(len(forms)) as pool:
        posts = [pool.submit(client.post, COMPLETIONS, **form) for form in forms]
        assert [post.result().status_code for post in posts] == [200] * len(forms)
    assert "ERROR" not in running.log


def test_answers_are_saved_within_the_share_of_their_user(
    alice: User, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.DATABASE_POOL_SIZE = 2  # the share is one
    fake_openai.chat.default = Answer("Hello.", first_token_s=1.0)
    reply = ChatService(StandaloneChat.objects.create(user=alice)).reply_to("Hello")
    live = reply.live
    assert live is not None
    fake_openai.wait_for(lambda: fake_openai.chat.requests)  # the prompt's own step has ended
    with connection_share.hold(alice.pk):
        fake_openai.wait_for(lambda: live.text)
        time.sleep(0.1)
        assert not live.saved.done()
    assert live.saved.result(PATIENCE_S) is not None


def test_a_users_long_messages_are_prepared_one_after_the_other(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.default = Vectors(delay_s=1.0)
    long = "long " * LONG_CHARS
    posts = [(alice, f"{long} 1"), (alice, f"{long} 2"), (alice, "Short"), (bob, f"{long} 3")]
    replies = [
        ChatService(StandaloneChat.objects.create(user=user)).reply_to(text) for user, text in posts
    ]
    remembering.wait_for(lambda: len(remembering.embeddings.requests) >= len(posts) - 1)
    time.sleep(0.2)  # for one that should not come
    assert len(remembering.embeddings.requests) == len(posts) - 1
    for reply in replies:
        assert reply.live
        reply.live.saved.result(PATIENCE_S)
    assert len(remembering.chat.requests) == len(posts)


def test_a_pause_follows_a_users_long_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_messages, "PAUSE_S", 2.0 / LONG_CHARS)
    long, alice, bob = "x" * (LONG_CHARS + 1), 1, 2
    begun: list[str] = []

    def save(user: int, content: str, name: str) -> None:
        with long_messages.saved_alone(user, content):
            begun.append(name)

    save(alice, long, "first")
    with ThreadPoolExecutor(1) as pool:
        second = pool.submit(save, alice, long, "second")
        save(alice, "short", "short")
        save(bob, long, "another user's")
        assert begun == ["first", "short", "another user's"]
        second.result(PATIENCE_S)
    assert begun[-1] == "second"


def test_a_cancelled_preparation_lets_the_next_begin() -> None:
    question = StandaloneChatMessage(user_id=1, content="x" * (LONG_CHARS + 1))

    async def prepare(seconds: float) -> None:
        async with long_messages.prepared_alone(question):
            await asyncio.sleep(seconds)

    async def cancel_two() -> None:
        running, waiting = (asyncio.create_task(prepare(PATIENCE_S)) for _ in range(2))
        await asyncio.sleep(0)
        waiting.cancel()
        running.cancel()
        await asyncio.wait_for(prepare(0), PATIENCE_S)
        assert waiting.cancelled()
        assert running.cancelled()

    event_loop.start(cancel_two()).result(PATIENCE_S)
