"""Any model server: what one refuses, sends or counts never makes a conversation unanswerable."""

import asyncio
import json
import random
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.answers import server_ways
from chat.models import Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import (
    Answer,
    Behaviour,
    CutAfter,
    Echo,
    Empty,
    ErrorEvent,
    FakeOpenAI,
    Hang,
    HangAfter,
    NoSystem,
    Raw,
    Redirect,
    Refuse,
    StrictRoles,
    Unsupported,
    Window,
)

pytestmark = pytest.mark.django_db(transaction=True)
KEY = "sk-test-secret-0123456789"
LENGTHS = ("max_tokens", "max_completion_tokens")


@pytest.fixture(autouse=True)
def forgotten_ways() -> Iterator[None]:
    """What was learned about a server is forgotten: all tests have the same one."""
    server_ways._ways.clear()
    yield
    server_ways._ways.clear()


@pytest.fixture(autouse=True)
def unlimited(settings: Settings) -> None:
    settings.THROTTLE_MESSAGES = None


@pytest.fixture
def client(alice: User, api: Api) -> APIClient:
    return api(alice)


def post(
    client: APIClient, chat: StandaloneChat | Passage, content: str = "Hello", **more: Any
) -> Any:
    return client.post(
        f"/api/{chat.kind}s/{chat.pk}/messages/", {"content": content}, format="json", **more
    )


def stream(
    client: APIClient, chat: StandaloneChat, content: str = "Hello"
) -> list[tuple[str, Any]]:
    """The events of a turn: name and data."""
    response = post(client, chat, content, HTTP_ACCEPT="text/event-stream")
    body = asyncio.run(joined(response.streaming_content)).decode()
    events = [event.split("\n") for event in body.split("\n\n") if event.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in events]


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def prompts(fake: FakeOpenAI) -> list[list[dict[str, Any]]]:
    return [request.messages for request in fake.chat.requests]


def contents(prompt: list[dict[str, Any]]) -> list[str]:
    return [part["content"] for part in prompt]


def begins_as_before(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether a prompt begins with the one before, their last messages apart."""
    return after[: len(before) - 1] == before[:-1]


@pytest.mark.parametrize("failure", [Refuse(500), Hang(), Empty(), ErrorEvent()])
def test_a_question_without_an_answer_is_no_history(
    failure: Behaviour,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_TIMEOUT_S = 0.3
    fake_openai.chat.default = StrictRoles()
    fake_openai.chat.script(StrictRoles(Answer("One.")), failure)
    statuses = [post(client, chat, text).status_code for text in ("First", "Second", "Third")]
    assert statuses[0] == statuses[2] == 201
    assert contents(prompts(fake_openai)[-1])[1:] == ["First", "One.", "Third"]


def test_an_interrupted_answer_with_text_is_history(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(CutAfter("So far"))
    assert post(client, chat, "First").status_code == 502
    assert post(client, chat, "Second").status_code == 201
    assert contents(prompts(fake_openai)[-1])[1:] == ["First", "So far", "Second"]


def test_long_messages_never_cut_a_turn_in_half(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = StrictRoles(Answer("Noted."))
    for number in range(5):
        assert post(client, chat, f"{number} " + "some words " * 1090).status_code == 201


def test_imported_messages_of_one_time_are_whole_turns_in_the_prompt(
    alice: User, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    roles = ["assistant", "user", "user", "assistant", "assistant", "user"]
    for number, role in enumerate(roles):
        chat.messages.create(
            user=alice, role=role, content=f"text {number}", created_at=chat.created_at
        )
    fake_openai.chat.default = StrictRoles()
    assert post(client, chat).status_code == 201
    assert contents(prompts(fake_openai)[0])[1:] == ["text 2", "text 3\n\ntext 4", "Hello"]


def test_many_unanswered_questions_do_not_push_history_out(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.CHAT_HISTORY_LIMIT = 4
    fake_openai.chat.script(Answer("One."), *[Refuse(503)] * 6)
    for number in range(8):
        post(client, chat, f"Question {number}")
    assert contents(prompts(fake_openai)[-1])[1:] == ["Question 0", "One.", "Question 7"]


@pytest.mark.parametrize("kind", [StandaloneChat, Passage])
def test_a_server_without_the_role_system_gets_instructions_with_the_first_message(
    kind: Any, alice: User, client: APIClient, fake_openai: FakeOpenAI
) -> None:
    texts = {"reference": "John 3:16", "text": "For God so loved"} if kind is Passage else {}
    chat = kind.objects.create(user=alice, **texts)
    fake_openai.chat.default = NoSystem(StrictRoles(Answer("Yes.")))
    assert [post(client, chat, text).status_code for text in ("First", "Second")] == [201, 201]
    refused, first, second = prompts(fake_openai)
    assert refused[0]["role"] == "system"
    assert first[0]["content"] == f"{refused[0]['content']}\n\nFirst"
    assert second[:1] == first[:1]
    assert contents(second)[1:] == ["Yes.", "Second"]


@pytest.mark.parametrize(
    ("server", "expected"),
    [
        (Unsupported(("max_tokens",)), "max_completion_tokens"),
        (Unsupported(("max_tokens",), status=422), "max_completion_tokens"),
        (Unsupported(("stream_options",)), "max_tokens"),
    ],
)
def test_a_refused_parameter_is_left_out_and_remembered(
    server: Behaviour,
    expected: str,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_EXTRA_BODY = {"stream_options": {"include_usage": True}}
    fake_openai.chat.default = server
    assert [post(client, chat).status_code for _ in range(2)] == [201, 201]
    requests = fake_openai.chat.requests
    assert len(requests) == 3
    assert [name for name in LENGTHS if name in requests[2].fields] == [expected]


def test_the_extra_body_is_sent_but_never_replaces_the_prompt(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_EXTRA_BODY = {"temperature": 0.1, "messages": [], "stream": False}
    assert post(client, chat).status_code == 201
    (request,) = fake_openai.chat.requests
    assert request.fields["temperature"] == 0.1
    assert request.streams
    assert request.last_user_text == "Hello"


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("context_length_exceeded", "Too much."),
        (None, "This model's maximum context length is {tokens} tokens. You requested 9000."),
        (None, "the request exceeds the available context size. try increasing it"),
        (None, "The input token count (9000) exceeds the maximum number of tokens allowed."),
        (None, "prompt is too long: 9000 tokens > {tokens} maximum"),
    ],
)
def test_a_smaller_window_than_configured_is_found_and_remembered(
    code: str | None,
    message: str,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
) -> None:
    fake_openai.chat.default = Window(3000, StrictRoles(Answer("word " * 200)), code, message)
    counts = []
    for number in range(12):
        before = len(fake_openai.chat.requests)
        assert post(client, chat, f"{number} " + "some words " * 50).status_code == 201
        counts.append(len(fake_openai.chat.requests) - before)
    assert max(counts) <= 4
    first = next(turn for turn, count in enumerate(counts) if count > 1)
    assert counts[first + 1 :] == [1] * (11 - first), counts
    assert len(prompts(fake_openai)[-1]) >= 4


def test_a_server_that_counts_more_tokens_is_not_asked_too_much(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = Window(8192, Answer("word " * 600), factor=1.15 / 1.3)
    for number in range(14):
        assert post(client, chat, f"{number} " + "word " * 300).status_code == 201
    assert len(fake_openai.chat.requests) == 14


@pytest.mark.parametrize(("tokens", "requests"), [(1500, 1), (1000, 2)])
def test_a_message_larger_than_the_window_is_cut_to_half(
    tokens: int,
    requests: int,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_MAX_TOKENS = 100
    fake_openai.chat.default = Window(tokens, Answer("Noted."))
    response = post(client, chat, "some words " * 400)
    assert response.status_code == 201
    assert len(fake_openai.chat.requests) == requests
    assert response.json().get("truncated", False) is (requests > 1)
    assert post(client, chat, "And now?").status_code == 201
    assert len(fake_openai.chat.requests) == requests + 1


def test_a_prompt_refused_for_ever_ends_after_four_requests(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(*[Answer("word " * 40)] * 4)
    for _ in range(4):
        post(client, chat)
    fake_openai.chat.default = Refuse(400, "context_length_exceeded")
    failed = post(client, chat, "a long question " * 40)
    assert failed.status_code == 502
    assert "400 (context_length_exceeded)" in failed.data["detail"]
    assert len(fake_openai.chat.requests) == 4 + 4


@pytest.mark.parametrize(
    ("refusal", "detail"),
    [
        (Refuse(401), "status 401 (invalid_api_key)"),
        (Refuse(404, "model_not_found"), "status 404 (model_not_found)"),
        (
            Refuse(400, "unsupported_value", "Unknown 'temperature'"),
            "status 400 (unsupported_value)",
        ),
        (Refuse(500), "status 500."),
        (Refuse(400, KEY), "status 400."),
        (Refuse(400, "Hello, my secret"), "status 400."),
        (Raw(b"<html>bad gateway</html>", "text/html", status=502), "status 502."),
        (Redirect("http://127.0.0.1:1/v1/chat/completions"), "status 307."),
        (ErrorEvent(code="server_overloaded"), "(server_overloaded)"),
        (Answer("", finish_reason="length"), "(length)"),
    ],
)
def test_detail_event_and_log_name_the_reason_and_nothing_else(
    refusal: Behaviour,
    detail: str,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    settings.LLM_API_KEY = KEY
    fake_openai.chat.default = refusal
    failed = post(client, chat, "Hello, my secret")
    assert failed.status_code == 502
    assert detail in failed.data["detail"]
    (line,) = [line for line in caplog.messages if line.startswith("No answer from")]
    assert detail in line
    name, data = stream(client, chat, "Hello, my secret")[-1]
    assert (name, data["code"]) == ("error", "llm_error")
    assert detail in data["detail"]
    assert KEY not in caplog.text + str(data) + failed.data["detail"]
    assert "my secret" not in caplog.text + failed.data["detail"]


def test_a_redirect_on_the_same_server_is_followed(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Redirect("/v1/chat/completions?again=1"))
    assert post(client, chat).status_code == 201
    assert [request.last_user_text for request in fake_openai.chat.requests] == ["Hello"] * 2


@pytest.mark.parametrize(
    "ending", ["data:[DONE]\n\n", 'data: {"choices":[{"finish_reason":"stop"}]}\n\n']
)
def test_an_answer_ends_while_the_connection_stays_open(
    ending: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    text = 'data: {"choices":[{"delta":{"content":"Hello."}}]}\n\n'
    fake_openai.chat.default = Raw((text + ending).encode(), keep_open=True)
    response = post(client, chat)
    assert response.status_code == 201
    assert response.data["assistant_message"]["content"] == "Hello."


def test_reasoning_is_shown_and_never_stored_or_sent_back(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("<think>\nA greeting.\n</think>\n\nGood day."))
    events = stream(client, chat)
    reasoning = "".join(data["text"] for name, data in events if name == "reasoning")
    assert reasoning == "\nA greeting.\n"
    names = [name for name, _ in events]
    assert names == sorted(names, key=["context", "reasoning", "delta", "done"].index)
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert (answer.content, answer.status) == ("Good day.", "complete")
    post(client, chat)
    assert "greeting" not in str(prompts(fake_openai)[-1])


def test_reasoning_counts_against_silence(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_TIMEOUT_S = 0.5
    fake_openai.chat.default = Answer("<think>" + "hm " * 15 + "</think> Yes.", tokens_per_s=15)
    assert post(client, chat).data["assistant_message"]["content"] == "Yes."


@pytest.mark.parametrize("text", ["<think>It never", "<think>It</think>", " \n"])
@pytest.mark.parametrize("reason", ["stop", "length"])
def test_an_answer_without_a_word_is_failed_and_its_key_tries_again(
    text: str, reason: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer(text, finish_reason=reason))
    failed = post(client, chat, headers={"Idempotency-Key": "k"})
    assert (failed.status_code, failed.data["code"]) == (502, "llm_error")
    assert StandaloneChatMessage.objects.get(role="assistant").status == "failed"
    assert post(client, chat, headers={"Idempotency-Key": "k"}).status_code == 201


@pytest.mark.parametrize("reason", ["length", "content_filter", "stop"])
def test_a_cut_answer_is_complete_and_carries_the_reason(
    reason: str, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    expected = None if reason == "stop" else reason
    fake_openai.chat.script(*[Answer("So far", finish_reason=reason)] * 2)
    response = post(client, chat)
    assert response.status_code == 201
    answer = response.json()["assistant_message"]
    assert (answer["status"], answer.get("finish_reason")) == ("complete", expected)
    address = f"/api/chats/{chat.pk}/messages/{answer['id']}/"
    assert client.get(address).json() == answer
    assert "finish_reason" not in response.json()["user_message"]
    done = stream(client, chat)[-1][1]["assistant_message"]
    assert done.get("finish_reason") == expected
    again = client.post(f"/api/chats/{chat.pk}/messages/{done['id']}/regenerate/")
    assert "finish_reason" not in again.json()["assistant_message"]


def talk(
    client: APIClient, chat: StandaloneChat, fake: FakeOpenAI, turns: int
) -> list[list[dict[str, Any]]]:
    """The prompts of so many turns of a few words."""
    for number in range(turns):
        question = f"Question {number}: what is {number} times {number + 1}?"
        assert post(client, chat, question).status_code == 201
    return prompts(fake)


def test_sixty_turns_with_memory_begin_as_the_turn_before_in_54(
    alice: User, client: APIClient, chat: StandaloneChat, remembering: FakeOpenAI
) -> None:
    other = StandaloneChat.objects.create(user=alice, title="Sums")
    talk(client, other, remembering, 3)
    remembering.chat.default = StrictRoles()
    sent = talk(client, chat, remembering, 60)[3:]
    stable = [begins_as_before(*pair) for pair in pairwise(sent)]
    assert stable.count(True) >= 54
    assert sum("===== memories" in prompt[-1]["content"] for prompt in sent) > 50
    assert max(len(prompt) for prompt in sent) == 42
    assert min(len(prompt) for prompt in sent[30:]) == 22


FAILURES: list[Behaviour] = [
    Refuse(500), Refuse(429), Refuse(400, "content_filter"), Hang(), Empty(),
    CutAfter("So far"), HangAfter("So far"), ErrorEvent("So far"), Answer("<think>Hm"),
    Answer("Cut", finish_reason="length"), Raw(b"<html>", "text/html"),
]  # fmt: skip


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 21))]
)
def test_no_conversation_becomes_unanswerable_and_no_answer_is_lost(
    seed: int, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_TIMEOUT_S = 0.5
    choose = random.Random(seed)
    window = choose.choice([1800, 3000, 8192])
    answer = Echo(tokens=choose.choice([20, 150]))
    fake_openai.chat.default = Window(window, StrictRoles(answer))
    last_answer = None
    for number in range(50 if seed > 2 else 25):
        fails = choose.random() < 0.3
        fake_openai.chat.script(*[choose.choice(FAILURES)] * fails)
        words = "some words " * choose.choice([1, 5, 60])
        sent_before = len(fake_openai.chat.requests)
        response = post(client, chat, f"Question {number} of {seed} {words}")
        assert response.status_code in {201, 502, 504}
        assert fails or response.status_code == 201, response.data
        is_shortened = len(fake_openai.chat.requests) > sent_before + 1
        if last_answer and response.status_code == 201 and not is_shortened:
            assert last_answer in contents(prompts(fake_openai)[-1])
        if response.status_code == 201:
            last_answer = response.data["assistant_message"]["content"]
        elif response.data["assistant_message"]["content"]:
            last_answer = None  # the newest turn is an interrupted one
    assert post(client, chat).status_code == 201
