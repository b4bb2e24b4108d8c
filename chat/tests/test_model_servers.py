"""Any model server: what it refuses or counts never makes a conversation unanswerable."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.models import Passage, StandaloneChat
from chat.tests.model_server_support import contents, post, prompts, stream
from fake_openai import (
    Answer,
    Behaviour,
    ErrorEvent,
    FakeOpenAI,
    NoSystem,
    Raw,
    Redirect,
    Refuse,
    StrictRoles,
    Unsupported,
    Window,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("unlimited"),
]
KEY = "sk-test-secret-0123456789"
LENGTHS = ("max_tokens", "max_completion_tokens")


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
