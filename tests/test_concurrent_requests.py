"""More requests at once than threads or connections: none is refused, none blocks the others."""

import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from fake_openai import Answer, FakeOpenAI
from retrieval.steps import MAX_THREADS
from tests.support import PATIENCE_S, Server

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[..., Server]


def test_a_hundred_requests_at_once_share_two_connections(alice: User, server: Start) -> None:
    running = server(DATABASE_POOL_SIZE="2")
    client = running.client(create_token(alice)[1])  # opens a connection for each request
    with ThreadPoolExecutor(100) as pool:
        answers = list(pool.map(client.get, ["/api/chats/"] * 100))
    assert [answer.status_code for answer in answers] == [200] * 100
    assert "ERROR" not in running.log


def test_waiting_for_more_answers_than_threads_blocks_no_request(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("At last.", first_token_s=PATIENCE_S)
    running = server(STREAMS_PER_USER="1000", THROTTLE_MESSAGES="off", LLM_TIMEOUT="60")
    client, count = running.client(create_token(alice)[1]), MAX_THREADS + 2
    chats = [StandaloneChat.objects.create(user=alice).pk for _ in range(count)]
    with ThreadPoolExecutor(count) as pool:
        for chat in chats:
            pool.submit(client.post, f"/api/chats/{chat}/messages/", json={"content": "Hello"})
        until = time.monotonic() + PATIENCE_S
        while len(openai_server.requests) < count and time.monotonic() < until:
            time.sleep(0.02)
        assert len(openai_server.requests) == count
        assert client.get("/api/chats/").status_code == 200
        running.kill()
