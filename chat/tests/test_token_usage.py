"""Tokens of turns: counted to the token as the model's server counts them, and limited by day."""

import asyncio
import json
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.db.models import F
from django.test import Client
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.answers import answer_reader, server_ways
from chat.auth.api_tokens import create_token
from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat
from chat.services import ChatService
from chat.tests.model_server_support import joined
from chat.tests.support import Api
from fake_openai import Answer, Behaviour, Deltas, Echo, FakeOpenAI, Raw, Refuse, Unsupported
from retrieval import token_usage
from retrieval.models import TokenUsage, UserTokenUsage
from retrieval.token_count import count_tokens
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]
QUESTION = "Where did I leave the blue umbrella?"
STREAMS = 5  # of a user at once
EMBEDDED = 2 * 20  # tokens of a question and its answer, at most


@pytest.fixture(autouse=True)
def same_day() -> None:
    """A test that began in the last minute of a day (UTC) might see two days."""
    now = datetime.now(UTC)
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    if midnight - now < timedelta(minutes=1):
        time.sleep((midnight - now).total_seconds())


def post(client: APIClient, chat: StandaloneChat, content: str = QUESTION, **headers: Any) -> Any:
    """A turn; its background work is done when this returns."""
    url = f"/api/chats/{chat.pk}/messages/"
    response = client.post(url, {"content": content}, format="json", headers=headers)
    finish_embedding_jobs()
    return response


def text_of(response: Any) -> str:
    """The text of a streamed response."""
    return asyncio.run(joined(response.streaming_content)).decode()


def usage_of(client: APIClient) -> dict[str, Any]:
    return dict(client.get("/api/usage/").json())


def counted_by(fake: FakeOpenAI) -> dict[str, int]:
    """The fake server's own count of what it was asked."""
    answers = [request.usage or {} for request in fake.chat.requests]
    embeddings = [request.usage or {} for request in fake.embeddings.requests]
    return {
        "prompt_tokens": sum(usage.get("prompt_tokens", 0) for usage in answers),
        "completion_tokens": sum(usage.get("completion_tokens", 0) for usage in answers),
        "cached_tokens": sum(
            usage.get("prompt_tokens_details", {}).get("cached_tokens", 0) for usage in answers
        ),
        "embedding_tokens": sum(usage.get("prompt_tokens", 0) for usage in embeddings),
    }


def total(counts: dict[str, int]) -> int:
    return counts["prompt_tokens"] + counts["completion_tokens"] + counts["embedding_tokens"]


def test_usage_is_the_servers_own_count_to_the_token(
    client: APIClient, chat: StandaloneChat, bob: User, api: Api, remembering: FakeOpenAI
) -> None:
    remembering.chat.default = Answer("By the door, next to the boots.", cached_tokens=5)
    turn = post(client, chat).json()
    server = remembering.chat.requests[-1].usage or {}
    assert turn["usage"] == {
        "prompt_tokens": server["prompt_tokens"],
        "completion_tokens": 7,
        "cached_tokens": 5,
    }
    answer = turn["assistant_message"]["id"]
    client.post(f"/api/chats/{chat.pk}/messages/{answer}/regenerate/")
    finish_embedding_jobs()
    report = usage_of(client)
    assert report["day"] == report["month"] == counted_by(remembering)
    assert report["day"]["embedding_tokens"] > 0
    assert report["limit"] is None
    midnight = datetime.now(UTC).date() + timedelta(days=1)
    assert report["resets_at"] == f"{midnight}T00:00:00Z"
    assert total(usage_of(api(bob))["day"]) == 0
    assert sum(TokenUsage.objects.values_list("tokens", flat=True)) == total(report["day"])


def test_the_event_done_and_a_replay_tell_the_same_usage(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    headers = {"Accept": "text/event-stream", "Idempotency-Key": "once"}
    events = text_of(post(client, chat, **headers))
    done = json.loads(events.rpartition("event: done\ndata: ")[2])
    assert (
        done["usage"]["prompt_tokens"]
        == (fake_openai.chat.requests[0].usage or {})["prompt_tokens"]
    )
    used = usage_of(client)
    replay = post(client, chat, **{"Idempotency-Key": "once"})
    assert replay.json()["usage"] == done["usage"]
    later = client.get(f"/api/chats/{chat.pk}/messages/{done['assistant_message']['id']}/events/")
    assert json.dumps(done["usage"]) in text_of(later)
    assert usage_of(client) == used


@pytest.mark.parametrize(
    "server",
    [
        Unsupported(("stream_options",), Answer("Just here.")),
        Raw(b'data: {"choices": [{"delta": {"content": "Just here."}}]}\n\ndata: [DONE]\n\n'),
    ],
    ids=["refuses to count", "does not count"],
)
def test_a_server_without_a_count_is_counted_by_our_tokenizer(
    server: Behaviour, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = server
    usage = post(client, chat).json()["usage"]
    assert usage["completion_tokens"] == count_tokens("Just here.")
    texts = [part["content"] for part in fake_openai.chat.requests[-1].messages]
    assert (
        sum(map(count_tokens, texts))
        <= usage["prompt_tokens"]
        <= sum(count_tokens(text) + 8 for text in texts)
    )
    day = usage_of(client)["day"]
    assert day == usage | {"embedding_tokens": 0}


def test_a_server_that_never_ends_its_answer_is_waited_for_once(
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
    monkeypatch: Any,
) -> None:
    monkeypatch.setattr(answer_reader, "USAGE_TIMEOUT_S", 0.3)
    body = b'data: {"choices": [{"delta": {"content": "Here."}, "finish_reason": "stop"}]}\n\n'
    fake_openai.chat.default = Raw(body, keep_open=True)
    assert [post(client, chat).status_code for _ in range(2)] == [201, 201]
    assert not server_ways.ways_of(settings.LLM_BASE_URL).sends_usage


def test_a_refused_prompt_costs_nothing_and_a_broken_answer_what_came(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = Refuse(500)
    assert post(client, chat).status_code == 502
    assert total(usage_of(client)["day"]) == 0
    fake_openai.chat.default = Raw(b'data: {"choices": [{"delta": {"content": "Just he"}}]}\n\n')
    assert post(client, chat).status_code == 502
    day = usage_of(client)["day"]
    assert day["completion_tokens"] == count_tokens("Just he")
    assert day["prompt_tokens"] > 20


def test_an_answer_whose_chat_is_deleted_meanwhile_is_counted(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = Echo(first_token_s=PATIENCE_S)
    live = ChatService(chat).reply_to(QUESTION).live
    assert live
    until = time.monotonic() + PATIENCE_S
    while not live.count_prompt():  # the model's server has accepted it
        assert time.monotonic() < until
        time.sleep(0.01)
    client.delete(f"/api/chats/{chat.pk}/")
    assert live.saved.result() is None
    finish_embedding_jobs()
    assert usage_of(client)["day"]["prompt_tokens"] == live.count_prompt()


@pytest.mark.parametrize("setting", ["DAILY_TOKENS_PER_USER", "DAILY_TOKENS"])
def test_a_turn_at_the_limit_is_refused_and_stores_nothing(
    setting: str,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    setattr(settings, setting, 10_000)
    turn = post(client, chat, **{"Idempotency-Key": "first"}).json()
    used = total(usage_of(client)["day"])
    setattr(settings, setting, used + 1)
    assert post(client, chat, "One more").status_code == 201
    setattr(settings, setting, total(usage_of(client)["day"]))
    calls, messages = len(fake_openai.chat.requests), chat.messages.count()
    refused = post(client, chat, "Too much", **{"Idempotency-Key": "refused"})
    assert (refused.status_code, refused.json()["code"]) == (429, "daily_limit")
    assert 0 < int(refused.headers["Retry-After"]) <= 86_400
    answer = chat.messages.order_by("-id")[0].pk
    again = client.post(f"/api/chats/{chat.pk}/messages/{answer}/regenerate/")
    assert again.json()["code"] == "daily_limit"
    assert post(client, chat, **{"Idempotency-Key": "first"}).json() == turn
    assert (len(fake_openai.chat.requests), chat.messages.count()) == (calls, messages)
    setattr(settings, setting, 10_000_000)
    admitted = post(client, chat, "Another text", **{"Idempotency-Key": "refused"})
    assert admitted.status_code == 201


def test_a_limit_of_one_user_does_not_stop_another(
    client: APIClient, bob: User, chat: StandaloneChat, api: Api, settings: Settings
) -> None:
    settings.DAILY_TOKENS_PER_USER = 1
    token_usage.add(bob.pk, token_usage.Tokens(prompt_tokens=1))
    assert token_usage.used_today(bob.pk).by_user == 1  # type: ignore[union-attr]
    assert usage_of(client)["limit"] == 1
    bobs = StandaloneChat.objects.create(user=bob)
    assert post(api(bob), bobs).status_code == 429
    assert total(usage_of(client)["day"]) == 0


def test_turns_at_once_exceed_a_limit_by_those_that_run_alone(
    client: APIClient, alice: User, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    """Five streams are allowed at once: none begins once the others have reached the limit."""
    settings.THROTTLE_MESSAGES, settings.DAILY_TOKENS_PER_USER = None, 400
    chats = [StandaloneChat.objects.create(user=alice) for _ in range(12)]

    def chatting(chat: StandaloneChat) -> list[int]:
        try:
            return [post(api(alice), chat).status_code for _ in range(3)]
        finally:
            connection.close()

    with ThreadPoolExecutor(len(chats)) as pool:
        statuses = [status for part in pool.map(chatting, chats) for status in part]
    assert set(statuses) <= {201, 429}
    used = [request.usage["total_tokens"] for request in fake_openai.chat.requests if request.usage]
    assert 400 <= total(usage_of(client)["day"]) < 400 + settings.STREAMS_PER_USER * max(used)


def test_a_day_is_the_databases_whatever_way_a_clock_jumps(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    post(client, chat)
    settings.DAILY_TOKENS_PER_USER = 1
    assert post(client, chat).status_code == 429
    for days in (-1, 2):  # rows of yesterday; of tomorrow, after a clock was set back
        for model in (UserTokenUsage, TokenUsage):
            model.objects.update(day=F("day") + timedelta(days=days))
        assert total(usage_of(client)["day"]) == 0
        assert token_usage.used_today(chat.user_id).by_all == 0  # type: ignore[union-attr]
    assert post(client, chat).status_code == 201  # the limit of 1 is that of another day


def test_search_at_the_limit_goes_by_words(
    client: APIClient, chat: StandaloneChat, remembering: FakeOpenAI, settings: Settings
) -> None:
    post(client, chat)
    settings.DAILY_TOKENS_PER_USER = 1
    calls = len(remembering.embeddings.requests)
    results = client.get("/api/memory/search/", {"q": "umbrella"}).json()
    assert results["mode"] == "lexical"
    assert QUESTION in str(results["results"])
    assert len(remembering.embeddings.requests) == calls
    settings.DAILY_TOKENS_PER_USER = None
    used = usage_of(client)
    assert client.get("/api/memory/search/", {"q": "umbrella"}).json()["mode"] == "hybrid"
    assert usage_of(client) == used  # a search is no turn


def test_the_export_has_the_usage_and_an_erasure_resets_no_limit(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, alice: User
) -> None:
    post(client, chat)
    used = usage_of(client)
    lines = map(json.loads, text_of(client.get("/api/memory/export/")).splitlines())
    (line,) = (line for line in lines if line["table"] == "user_token_usage")
    assert {name: line[name] for name in used["day"]} == used["day"]
    client.delete("/api/memory/", {"confirm": "alice"}, format="json")
    assert usage_of(client) == used
    alice.delete()
    token_usage.purge()
    assert not UserTokenUsage.objects.exists()
    assert TokenUsage.objects.exists()


def test_old_days_are_deleted(alice: User) -> None:
    token_usage.add(alice.pk, token_usage.Tokens(prompt_tokens=1))
    UserTokenUsage.objects.update(day=F("day") - timedelta(days=token_usage.KEPT_DAYS))
    token_usage.purge()
    assert UserTokenUsage.objects.exists()
    UserTokenUsage.objects.update(day=F("day") - timedelta(days=1))
    token_usage.purge()
    assert not UserTokenUsage.objects.exists()


def test_the_admin_shows_what_an_answer_used_and_cost(
    client: APIClient,
    chat: StandaloneChat,
    blind_operator: Client,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_MODEL = "gpt-4o-mini"
    server: dict[str, Any] = {"prompt_tokens": 1000, "completion_tokens": 100, "total_tokens": 1100}
    server["prompt_tokens_details"] = {"cached_tokens": 400}
    fake_openai.chat.default = Deltas(({"content": "Here."},), usage=server)
    answer = post(client, chat).json()["assistant_message"]["id"]

    def page() -> str:
        url = f"/admin/chat/standalonechatmessage/{answer}/change/"
        return blind_operator.get(url).content.decode()

    assert "1,000 of the prompt, 400 of them cached; 100 of the answer" in page()
    assert "$0.000180 by gpt-4o-mini" in page()  # 600 × 0.15 + 400 × 0.075 + 100 × 0.60
    settings.LLM_PRICE_PER_1M = {"prompt": 1, "cached": 0, "completion": 2}
    assert "$0.000800 by gpt-4o-mini" in page()
    settings.LLM_MODEL = "another"
    assert "$0.000180 by gpt-4o-mini" in page()
    answer = post(client, chat).json()["assistant_message"]["id"]
    settings.LLM_PRICE_PER_1M = {}
    assert "no price of another is known" in page()


@pytest.mark.soak
def test_two_processes_exceed_a_limit_by_running_answers_alone(
    alice: User, bob: User, server: Callable[..., Server], openai_server: FakeOpenAI
) -> None:
    """Usage is the fake's own count, and each user's stays within the limit and five turns."""
    limit = 3_000
    openai_server.chat.default = Echo(first_token_s=0.02)
    running = server(
        WEB_CONCURRENCY="2",
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_API_KEY="sk-test",
        THROTTLE_MESSAGES="off",
        RAG_TIMEOUT=str(PATIENCE_S),
        DAILY_TOKENS_PER_USER=str(limit),
    )
    tokens = {user: create_token(user)[1] for user in (alice, bob)}

    def chatting(user: User) -> str:
        client = running.client(tokens[user])
        chat = client.post("/api/chats/", json={}).json()["id"]
        while True:
            turn = client.post(f"/api/chats/{chat}/messages/", json={"content": QUESTION})
            if turn.json().get("code") == "daily_limit":
                return str(turn.headers["Retry-After"])
            assert turn.status_code in (201, 429), turn.text

    with ThreadPoolExecutor(16) as pool:
        waits = list(pool.map(chatting, [alice, bob] * 8))
    assert all(0 < int(wait) <= 86_400 for wait in waits)
    turns = [
        request.usage["total_tokens"] for request in openai_server.chat.requests if request.usage
    ]
    counted = counted_by(openai_server)

    def reports() -> list[dict[str, int]]:
        clients = (running.client(token) for token in tokens.values())
        return [client.get("/api/usage/").json()["day"] for client in clients]

    until = time.monotonic() + PATIENCE_S
    while sum(map(total, reports())) != total(counted_by(openai_server)):
        assert time.monotonic() < until, (reports(), counted)
        time.sleep(0.1)
    for day in reports():
        assert limit <= total(day) < limit + STREAMS * (max(turns) + EMBEDDED)
