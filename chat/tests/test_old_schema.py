"""The chat runs on while memory comes and goes: its statements name nothing of memory's."""

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
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.memory.embed import finish_embedding_jobs
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from retrieval import db, runtime

pytestmark = pytest.mark.django_db(transaction=True)
MEMORY = re.compile(
    r"embedding(?!_tokens)|message_memories|message_terms|search_configs|recall_|vector",
    re.IGNORECASE,
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
    """Each URL of both kinds of conversation, each method."""
    for kind, fields in (("chats", {"title": "A"}), ("passages", {"reference": "A", "text": "B"})):
        created = client.post(f"/api/{kind}/", fields, format="json").json()
        conversation = f"/api/{kind}/{created['id']}/"
        messages = f"{conversation}messages/"
        key: dict[str, Any] = {"HTTP_IDEMPOTENCY_KEY": "k"}
        turn = client.post(messages, {"content": "Hello"}, format="json", **key)
        assert turn.status_code == 201, turn.content
        again = client.post(messages, {"content": "Hello"}, format="json", **key)
        assert again.status_code == 201
        streamed = client.post(
            messages,
            {"content": "More"},
            format="json",
            HTTP_ACCEPT="text/event-stream",
        )
        assert streamed.status_code == 200
        finish_embedding_jobs()
        question, answer = (
            f"{messages}{turn.json()[name]['id']}/"
            for name in ("user_message", "assistant_message")
        )
        for address in (
            f"/api/{kind}/",
            conversation,
            messages,
            question,
            answer,
            f"{answer}events/",
        ):
            assert client.get(address).status_code == 200
        last = client.get(messages).json()["results"][-1]["id"]
        wait_until_complete(client, f"{messages}{last}/")
        assert client.post(f"{messages}{last}/stop/").status_code == 200
        assert client.post(f"{messages}{last}/regenerate/").status_code == 201
        assert client.patch(conversation, {"memory": False}, format="json").status_code == 200
        assert client.patch(question, {"content": "Hello again"}, format="json").status_code == 200
        assert client.delete(answer).status_code == 204
        assert client.delete(conversation).status_code == 204


def wait_until_complete(client: APIClient, address: str) -> None:
    for _ in range(200):
        if client.get(address).json()["status"] != "streaming":
            return
    raise AssertionError("the answer does not end")


def test_no_chat_route_names_anything_of_memorys(
    alice: User, api: Api, remembering: FakeOpenAI, statements: list[str]
) -> None:
    use_every_route(api(alice))
    finish_embedding_jobs()
    assert sum("chat_messages" in statement for statement in statements) > 40
    assert list(filter(MEMORY.search, statements)) == []


def test_every_chat_route_works_on_the_first_schema(
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
        assert "ERROR" not in {record.levelname for record in caplog.records}
        assert remembering.embeddings.requests == []
    finally:
        call_command("migrate", "chat", verbosity=0)


def test_memory_removed_while_running_is_off_and_no_error(
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
        assert "ERROR" not in {record.levelname for record in caplog.records}
    finally:
        call_command("migrate", "chat", verbosity=0)
        runtime.reset()
    assert client.get("/api/memory/").json()["mode"] == "lexical"


@pytest.mark.newest_schema
def test_limits_usage_and_keeping_work_while_their_tables_are_removed(
    alice: User, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    """The process knows the tables, and they are dropped: no request may fail."""
    settings.DAILY_TOKENS_PER_USER = 1_000_000
    client = api(alice)
    chat = client.post("/api/chats/", {}, format="json").json()["id"]

    def use(keep: bool) -> list[int]:
        url = f"/api/chats/{chat}/"
        return [
            client.post(f"{url}messages/", {"content": "Hello"}, format="json").status_code,
            client.get("/api/usage/").status_code,
            client.get(url).status_code,
            client.patch(url, {"keep": keep}, format="json").status_code,
        ]

    assert use(True) == [201, 200, 200, 200]
    call_command("migrate", "chat", "0016_rollout", verbosity=0)
    try:
        assert use(False) == [201, 200, 200, 503]
        assert client.get("/api/usage/").json()["day"]["prompt_tokens"] == 0
    finally:
        call_command("migrate", "chat", verbosity=0)
        runtime.reset()
    assert use(True) == [201, 200, 200, 200]
