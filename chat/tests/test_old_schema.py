"""The chat's own statements name nothing younger than its first migration: it runs on while memory comes and goes."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from threading import get_ident
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connections
from django.db.backends.signals import connection_created
from rest_framework.test import APIClient

from chat.memory.embed import finish_embedding_jobs
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from retrieval import db, runtime

pytestmark = pytest.mark.django_db(transaction=True)
YOUNGER = re.compile(
    r"embedding|message_memories|message_terms|search_configs|recall_|vector", re.IGNORECASE
)


@pytest.fixture
def statements(transactional_db: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Every statement through Django, of any thread, that does not require memory's tables."""
    seen: list[str] = []
    require_memory, depth = db.require_memory, Counter[int]()

    @contextmanager
    def counted() -> Iterator[None]:
        depth[get_ident()] += 1
        try:
            with require_memory():
                yield
        finally:
            depth[get_ident()] -= 1

    def capture(execute: Any, sql: str, *rest: Any) -> Any:
        if not depth[get_ident()]:
            seen.append(sql)
        return execute(sql, *rest)

    monkeypatch.setattr(db, "require_memory", counted)

    def watch(connection: Any, **_: Any) -> None:
        if capture not in connection.execute_wrappers:
            connection.execute_wrappers.append(capture)

    connection_created.connect(watch)
    connections["default"].close()
    yield seen
    connection_created.disconnect(watch)
    connections["default"].execute_wrappers.clear()


def use_every_route(client: APIClient) -> None:
    """Each address of both kinds of conversation, each method."""
    for kind, fields in (("chats", {"title": "A"}), ("passages", {"reference": "A", "text": "B"})):
        one = f"/api/{kind}/{client.post(f'/api/{kind}/', fields, format='json').json()['id']}/"
        turn = client.post(
            f"{one}messages/", {"content": "Hello"}, format="json", HTTP_IDEMPOTENCY_KEY="k"
        )
        assert turn.status_code == 201, turn.content
        again = client.post(
            f"{one}messages/", {"content": "Hello"}, format="json", HTTP_IDEMPOTENCY_KEY="k"
        )
        assert again.status_code == 201
        streamed = client.post(
            f"{one}messages/", {"content": "More"}, format="json", HTTP_ACCEPT="text/event-stream"
        )
        assert streamed.status_code == 200
        finish_embedding_jobs()
        question, answer = (
            f"{one}messages/{turn.json()[name]['id']}/"
            for name in ("user_message", "assistant_message")
        )
        for address in (
            f"/api/{kind}/",
            one,
            f"{one}messages/",
            question,
            answer,
            f"{answer}events/",
        ):
            assert client.get(address).status_code == 200
        last = client.get(f"{one}messages/").json()["results"][-1]["id"]
        wait_until_complete(client, f"{one}messages/{last}/")
        assert client.post(f"{one}messages/{last}/stop/").status_code == 200
        assert client.post(f"{one}messages/{last}/regenerate/").status_code == 201
        assert client.patch(one, {"memory": False}, format="json").status_code == 200
        assert client.patch(question, {"content": "Hello again"}, format="json").status_code == 200
        assert client.delete(answer).status_code == 204
        assert client.delete(one).status_code == 204


def wait_until_complete(client: APIClient, address: str) -> None:
    """Until the answer has ended."""
    for _ in range(200):
        if client.get(address).json()["status"] != "streaming":
            return
    raise AssertionError("the answer does not end")


def test_no_chat_route_names_what_memory_added(
    alice: User, api: Api, remembering: FakeOpenAI, statements: list[str]
) -> None:
    use_every_route(api(alice))
    finish_embedding_jobs()
    assert len([one for one in statements if "chat_messages" in one]) > 40
    assert [one for one in statements if YOUNGER.search(one)] == []


def test_every_chat_route_works_on_the_first_migration_s_schema(
    alice: User,
    api: Api,
    remembering: FakeOpenAI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    try:
        runtime.reset()
        use_every_route(api(alice))
        finish_embedding_jobs()
        assert api(alice).get("/api/memory/").json()["mode"] == "off"
        assert api(alice).get("/api/memory/search/", {"q": "Hello"}).json() == {
            "mode": "off",
            "results": [],
        }
        assert [one for one in caplog.records if one.levelname == "ERROR"] == []
        assert remembering.embeddings.requests == []
    finally:
        call_command("migrate", "chat", verbosity=0)


def test_memory_that_is_taken_away_meanwhile_is_off_and_no_error(
    alice: User,
    api: Api,
    remembering: FakeOpenAI,
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = api(alice)
    use_every_route(client)
    assert client.get("/api/memory/").json()["mode"] != "off"
    finish_embedding_jobs()
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    try:
        use_every_route(client)
        assert client.get("/api/memory/").json()["mode"] == "off"
        assert [one for one in caplog.records if one.levelname == "ERROR"] == []
    finally:
        call_command("migrate", "chat", verbosity=0)
        runtime.reset()
    assert client.get("/api/memory/").json()["mode"] == "lexical"
