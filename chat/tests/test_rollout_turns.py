"""Turns under rag_rollout: who is given memories, what the dark counts, a fuse that blows."""

import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token
from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat
from chat.services import ChatService
from chat.tests.support import Api
from fake_openai import Answer, FakeOpenAI, Refuse
from retrieval.rollout import recall_times
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]
FACT = "My dog is called Biscuit and he loves cheese."
QUESTION = "What is my dog called?"
WORKERS = 2
LOCK = "BEGIN; LOCK TABLE forgotten_messages IN ACCESS EXCLUSIVE MODE"  # which recall reads

WAITING = """
    SELECT count(*) FROM pg_locks
    WHERE NOT granted AND relation = 'forgotten_messages'::regclass
"""


@pytest.fixture
def client(alice: User, api: Api, remembering: FakeOpenAI) -> APIClient:
    """Alice's; a fact of hers is in another chat."""
    remembering.chat.default = Answer("I see.")
    client = api(alice)
    say(client, FACT)
    recall_times._counts.clear()
    return client


def say(client: APIClient, content: str) -> dict[str, Any]:
    """A turn in a new chat; its background work is done when this returns."""
    chat = client.post("/api/chats/", {}, format="json").json()["id"]
    response = client.post(f"/api/chats/{chat}/messages/", {"content": content}, format="json")
    assert response.status_code == 201, response.content
    finish_embedding_jobs()
    return dict(response.json())


def rollout(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    recall_times.flush()
    call_command("rag_rollout", *arguments, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def last_prompt(fake: FakeOpenAI) -> str:
    return str(fake.chat.requests[-1].messages)


def test_a_turn_counts_its_recall_and_what_it_added(
    client: APIClient, remembering: FakeOpenAI
) -> None:
    assert FACT in str(say(client, QUESTION)["context"])
    hour = rollout()["hour"]
    assert (hour["count"], hour["errors"]) == (1, 0)
    assert hour["p50_ms"] > 0
    assert 20 < hour["added_tokens"] < 200


def test_a_dark_turn_counts_the_same_and_adds_nothing(
    client: APIClient, remembering: FakeOpenAI
) -> None:
    say(client, QUESTION)
    lit = rollout("dark")["hour"]
    calls = len(remembering.embeddings.requests), len(remembering.chat.requests)
    turn = say(client, "What is my dog called, then?")
    assert turn["context"] == []
    assert FACT not in last_prompt(remembering)
    assert "memories" not in remembering.chat.requests[-1].messages[-1]["content"]
    dark = rollout()["hour"]
    assert (dark["count"], dark["errors"]) == (2, 0)
    assert dark["added_tokens"] > lit["added_tokens"] + 20
    # The question and its answer are embedded as ever; the model is asked once.
    assert len(remembering.chat.requests) - calls[1] == 1
    assert len(remembering.embeddings.requests) - calls[0] <= 2


def test_off_recalls_nothing(client: APIClient, remembering: FakeOpenAI) -> None:
    rollout("off")
    assert say(client, QUESTION)["context"] == []
    assert rollout()["hour"]["count"] == 0
    answer = client.get("/api/memory/search/", {"q": QUESTION}).json()
    assert FACT in str(answer["results"])
    assert client.get("/api/memory/").json()["mode"] == "hybrid"


def test_a_share_gives_memories_to_its_users_alone(
    client: APIClient, alice: User, remembering: FakeOpenAI
) -> None:
    rollout("1%")
    is_in = rollout("--user", "alice")["given"]
    assert (FACT in str(say(client, QUESTION)["context"])) is is_in
    rollout("100%")
    assert FACT in str(say(client, QUESTION)["context"])
    assert rollout()["hour"]["count"] == 2


def test_a_failing_embedding_service_is_no_error(
    client: APIClient, remembering: FakeOpenAI
) -> None:
    remembering.embeddings.default = Refuse(500)
    assert FACT in str(say(client, QUESTION)["context"])
    hour = rollout()["hour"]
    assert (hour["count"], hour["errors"]) == (1, 0)


def test_a_recall_that_waits_for_a_lock_is_ended_and_an_error(
    client: APIClient, other: Any, settings: Settings
) -> None:
    settings.RAG_TIMEOUT_S = 0.5
    other.execute(LOCK)
    try:
        assert say(client, QUESTION)["context"] == []
        rollout("dark")
        assert say(client, "What is my dog called, then?")["context"] == []
        until = time.monotonic() + PATIENCE_S
        while other.execute(WAITING).fetchone() != (0,):
            assert time.monotonic() < until
            time.sleep(0.02)
    finally:
        other.execute("ROLLBACK")
    hour = rollout()["hour"]
    assert (hour["count"], hour["errors"]) == (2, 2)


def test_an_override_is_asked_only_for_users_who_are_given_memories(
    client: APIClient, alice: User, remembering: FakeOpenAI
) -> None:
    questions = []

    class Own(ChatService):
        def _get_relevant_context(self, question: Any, history: Any = ()) -> list[Any]:
            questions.append(question.content)
            return []

    for name in ("on", "dark"):
        rollout(name)
        live = Own(StandaloneChat.objects.create(user=alice)).reply_to(name).live
        assert live
        live.saved.result()
    finish_embedding_jobs()
    assert questions == ["on"]


@pytest.mark.soak
def test_a_locked_recall_blows_the_fuse_and_no_turn_fails(
    alice: User, bob: User, server: Callable[..., Server], openai_server: FakeOpenAI, other: Any
) -> None:
    """20 requests a second by ten users, with each state; a lock on what recall reads."""
    users = [alice, bob, *(User.objects.create(username=f"user{n}") for n in range(8))]
    tokens = [create_token(user)[1] for user in users]
    running = server(
        WEB_CONCURRENCY=str(WORKERS),
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_API_KEY="sk-test",
        THROTTLE_MESSAGES="off",
        RAG_TIMEOUT="1",
    )
    outcomes: list[tuple[int, bool]] = []
    ended = time.monotonic() + PATIENCE_S

    def chat(token: str) -> None:
        client = running.client(token)
        number = 0
        while time.monotonic() < ended:
            number += 1
            chat = client.post("/api/chats/", json={}).json()["id"]
            turn = client.post(f"/api/chats/{chat}/messages/", json={"content": f"{FACT} {number}"})
            context = turn.json().get("context")
            outcomes.append((turn.status_code, bool(context)))
            time.sleep(0.4)

    def within(seconds: float, done: Callable[[], bool]) -> None:
        until = time.monotonic() + seconds
        while not done() and time.monotonic() < until:
            time.sleep(0.2)
        assert done(), running.log

    def settled(given: bool) -> None:
        """Within 10 s, plus what turns under way need, every answer is (not) given memories."""
        time.sleep(10)
        seen = len(outcomes)
        within(PATIENCE_S, lambda: len(outcomes) >= seen + 30)
        contexts = {context for _, context in outcomes[seen + len(users) :]}
        assert contexts == {given}

    with ThreadPoolExecutor(len(users)) as pool:
        chats = [pool.submit(chat, token) for token in tokens]
        try:
            settled(given=True)
            rollout("dark")
            settled(given=False)
            rollout("on", "--fuse-errors", "5")
            settled(given=True)
            other.execute(LOCK)
            within(60, lambda: rollout()["state"] == "dark")
            other.execute("ROLLBACK")
        finally:
            ended = 0
        for chatting in chats:
            chatting.result()
    assert {status for status, _ in outcomes} == {201}
    assert running.log.count("WARNING: Recall fuse: ") == 1
