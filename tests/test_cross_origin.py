"""Pages of another origin may call the API with a token, if CORS_ALLOWED_ORIGINS names them."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from tests.support import Server

pytestmark = pytest.mark.django_db(transaction=True)
ORIGIN, OTHER = "https://app.example", "https://other.example"
ALLOWED = "access-control-allow-origin"
# What OpenAI's libraries send; not all of them with each request.
OPENAI_HEADERS = {
    "x-stainless-arch",
    "x-stainless-async",
    "x-stainless-custom-poll-interval",
    "x-stainless-helper-method",
    "x-stainless-lang",
    "x-stainless-os",
    "x-stainless-package-version",
    "x-stainless-poll-helper",
    "x-stainless-retry-count",
    "x-stainless-runtime",
    "x-stainless-runtime-version",
    "x-stainless-timeout",
}


def test_pages_of_a_named_origin_may_call_the_api(
    alice: User, server: Callable[..., Server]
) -> None:
    running = server(CORS_ALLOWED_ORIGINS=f"{ORIGIN}, http://localhost:3000")
    client = running.client(create_token(alice)[1], Origin=ORIGIN)
    asks = {
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": "authorization,content-type,idempotency-key",
    }
    preflight = running.client().options(
        "/api/chats/1/messages/", headers=asks | {"Origin": ORIGIN}
    )
    assert (preflight.status_code, preflight.headers[ALLOWED]) == (200, ORIGIN)
    allowed = preflight.headers["access-control-allow-headers"]
    for name in ("authorization", "content-type", "idempotency-key", "x-verse-chat"):
        assert name in allowed.split(", ")
    assert "POST" in preflight.headers["access-control-allow-methods"]

    chat = client.post("/api/chats", json={}).json()["id"]
    answers: list[Any] = [
        client.get("/api/chats/"),
        client.post(f"/api/chats/{chat}/messages", json={"content": "Hello"}),
        client.post(
            f"/api/chats/{chat}/messages/",
            json={"content": "Hello"},
            headers={"Accept": "text/event-stream", "Idempotency-Key": "one"},
        ),
        client.get("/api/chats/4711/"),
        client.get("/api/nothing/"),
        client.put("/api/chats/"),
        client.post("/api/chats/", content=b"{", headers={"Content-Type": "application/json"}),
        client.post("/api/chats/", content=b"x" * 1_000_001),
        client.get("/api/chats/", headers={"Authorization": "Token x"}),
    ]
    statuses = [answer.status_code for answer in answers]
    assert statuses == [200, 201, 200, 404, 404, 405, 400, 413, 401]
    for answer in answers:
        assert answer.headers[ALLOWED] == ORIGIN, answer
        assert "origin" in answer.headers["vary"].lower()
        assert "access-control-allow-credentials" not in answer.headers
    assert "idempotent-replayed" in answers[0].headers["access-control-expose-headers"]

    others = [
        client.get("/api/chats/", headers={"Origin": OTHER}),
        client.post("/api/chats/", content=b"x" * 1_000_001, headers={"Origin": OTHER}),
        client.get("/readyz"),
        client.get("/admin/login/"),
    ]
    assert all(ALLOWED not in answer.headers for answer in others)


def test_openais_library_may_call_v1_from_a_page(
    alice: User, server: Callable[..., Server]
) -> None:
    running = server(CORS_ALLOWED_ORIGINS=ORIGIN, DAILY_TOKENS_PER_USER="1")
    names = {"authorization", "content-type", "user-agent"} | OPENAI_HEADERS
    asks = {
        "Origin": ORIGIN,
        "Access-Control-Request-Method": "POST",
        "Access-Control-Request-Headers": ",".join(sorted(names)),
    }
    preflight = running.client().options("/v1/chat/completions", headers=asks)
    assert (preflight.status_code, preflight.headers[ALLOWED]) == (200, ORIGIN)
    assert names <= set(preflight.headers["access-control-allow-headers"].split(", "))

    client = running.client(Authorization=f"Bearer {create_token(alice)[1]}", Origin=ORIGIN)
    body = {"model": "verse", "messages": [{"role": "user", "content": "Hello"}]}
    answer, refused = (client.post("/v1/chat/completions", json=body) for _ in range(2))
    assert (answer.status_code, refused.status_code) == (200, 429)
    assert refused.headers["x-should-retry"] == "false"
    exposed = refused.headers["access-control-expose-headers"].split(", ")
    assert {"x-should-retry", "retry-after", "x-verse-chat"} <= set(exposed)


def test_an_address_without_its_last_slash_is_the_same(
    alice: User, server: Callable[..., Server]
) -> None:
    running = server()
    client = running.client(create_token(alice)[1], Origin=ORIGIN)
    created = client.post("/api/chats", json={"title": "Bread"})
    assert (created.status_code, created.json()["title"]) == (201, "Bread")
    assert ALLOWED not in created.headers
    chat = f"/api/chats/{created.json()['id']}"
    assert client.patch(chat, json={"title": "Rye"}).json()["title"] == "Rye"
    turn = client.post(f"{chat}/messages", json={"content": "Hello"})
    assert turn.status_code == 201
    answer = f"{chat}/messages/{turn.json()['assistant_message']['id']}"
    assert client.post(f"{answer}/stop").json()["status"] == "complete"
    for path in ("/api/chats", "/api/memory", "/api/memory/search?q=x", "/api/schema", "/api/docs"):
        assert client.get(path).status_code == 200, path
    assert (
        client.get("/api/memory/search?q=x").json() == client.get("/api/memory/search/?q=x").json()
    )
    page = client.get("/api/chats?page_size=1").json()
    assert page["results"][0]["title"] == "Rye"
    with_slash, without = client.get("/api/nothing/"), client.get("/api/nothing")
    assert (with_slash.status_code, with_slash.content) == (404, without.content)
    assert client.delete(chat).status_code == 204
