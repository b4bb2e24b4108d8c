"""While the embedding service hangs, many turns at once are answered, with recall by words."""

import asyncio
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.auth.api_tokens import create_token
from chat.memory.answer_recall import MIN_RECALL_S
from chat.models import StandaloneChat
from fake_openai import Answer, FakeOpenAI, Vectors
from fake_openai.exchange import Exchange
from fake_openai.shapes import Shape
from retrieval.embeddings.circuit_breaker import MAX_FAILURES
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
Start = Callable[..., Server]
TURNS = 40
RAG_TIMEOUT_S = 1.0
POLL_S = 0.05


@dataclass(frozen=True)
class HangUntil:
    """Answers only once it is ``released``."""

    released: threading.Event

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        while not self.released.is_set():  # noqa: ASYNC110 - another thread sets it
            await asyncio.sleep(POLL_S)
        await Vectors().play(exchange, shape)


@pytest.mark.parametrize(
    "machine_is_free", [False, pytest.param(True, marks=pytest.mark.soak)], ids=["busy", "free"]
)
def test_forty_turns_are_answered_while_the_embedding_service_hangs(
    alice: User, server: Start, openai_server: FakeOpenAI, machine_is_free: bool
) -> None:
    openai_server.chat.default = Answer("I see.")
    released = threading.Event()
    openai_server.embeddings.default = HangUntil(released)
    facts = {f"What is in box{n}?": f"In box{n} is the rope." for n in range(TURNS + 1)}
    earlier = StandaloneChat.objects.create(user=alice)
    for fact in facts.values():
        earlier.messages.create(user=alice, role="user", content=fact)
    questions = {StandaloneChat.objects.create(user=alice).pk: question for question in facts}
    *at_once, alone = questions
    running = server(
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_API_KEY="sk-test",
        EMBEDDING_TIMEOUT=str(PATIENCE_S),
        RAG_TIMEOUT=str(RAG_TIMEOUT_S),
        STREAMS_PER_USER=str(TURNS),
    )
    token = create_token(alice)[1]

    def ask(chat: int) -> bool:
        """Whether the answer was given the fact."""
        client, url = running.client(token), f"/api/chats/{chat}/messages/"
        started = time.monotonic()
        turn = client.post(url, json={"content": questions[chat]}).json()
        durations_s.append(time.monotonic() - started)
        assert turn["assistant_message"]["content"] == "I see."
        return facts[questions[chat]] in [memory["content"] for memory in turn["context"]]

    durations_s: list[float] = []
    with ThreadPoolExecutor(TURNS) as pool:
        by_words = list(pool.map(ask, at_once))
    if machine_is_free:
        assert max(durations_s) < RAG_TIMEOUT_S + MIN_RECALL_S
        assert all(by_words)
    # MIN_RECALL_S is too short for forty at once on an overloaded machine.
    assert ask(alone)
    # On a slow machine the circuit breaker opens before the last turns begin.
    requested = facts.keys() & {
        text for request in openai_server.embeddings.requests for text in request.texts
    }
    assert len(requested) > MAX_FAILURES
    released.set()
    wait_until_embedded(requested)
    texts = [text for request in openai_server.embeddings.requests for text in request.texts]
    assert all(texts.count(text) == 1 for text in requested)


def wait_until_embedded(contents: set[str]) -> None:
    """Until each of these messages has a vector."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        with connection.cursor() as cursor:
            cursor.execute("SELECT content FROM standalone_chat_messages WHERE embedding IS NULL")
            pending = contents & {content for (content,) in cursor}
        if not pending:
            return
        time.sleep(0.1)
    raise AssertionError(f"{len(pending)} messages have no vector")
