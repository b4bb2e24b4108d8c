"""What a client may not send: a clear error in OpenAI's form, and nothing stored."""

from typing import Any

import pytest

from chat.models import StandaloneChat
from chat.openai_api.tests.support import Bearer, stored, user
from fake_openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
HELLO = [user("Hello")]
AUDIO = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
BODIES: dict[str, tuple[Any, int, str, str | None]] = {
    "a list": ([], 400, "invalid", None),
    "no model": ({"messages": HELLO}, 400, "invalid", "model"),
    "a model that is no text": ({"model": 3, "messages": HELLO}, 400, "invalid", "model"),
    "an unknown model": ({"model": "gpt-4", "messages": HELLO}, 404, "model_not_found", "model"),
    "no messages": ({}, 400, "invalid", "messages"),
    "empty messages": ({"messages": []}, 400, "invalid", "messages"),
    "messages as a text": ({"messages": "Hello"}, 400, "invalid", "messages"),
    "a message as a text": ({"messages": ["Hello"]}, 400, "invalid", "messages[0]"),
    "system alone": (
        {"messages": [{"role": "system", "content": "Hi"}]},
        400,
        "invalid",
        "messages",
    ),
    "no role": ({"messages": [{"content": "Hi"}]}, 400, "invalid", "messages[0].role"),
    "an unknown role": (
        {"messages": [*HELLO, {"role": "narrator", "content": "Hi"}]},
        400,
        "invalid",
        "messages[1].role",
    ),
    "a role that is a list": (
        {"messages": [{"role": ["user"], "content": "Hi"}]},
        400,
        "invalid",
        "messages[0].role",
    ),
    "a number": ({"messages": [user(7)]}, 400, "invalid", "messages[0].content"),
    "null": ({"messages": [user(None)]}, 400, "invalid", "messages[0].content"),
    "an object": ({"messages": [user({"text": "Hi"})]}, 400, "invalid", "messages[0].content"),
    "a blank text": ({"messages": [user(" \n")]}, 400, "invalid", "messages[0].content"),
    "no parts": ({"messages": [user([])]}, 400, "invalid", "messages[0].content"),
    "a part as a text": ({"messages": [user(["Hi"])]}, 400, "invalid", "messages[0].content"),
    "a part without type": (
        {"messages": [user([{"text": "Hi"}])]},
        400,
        "invalid",
        "messages[0].content",
    ),
    "a text part without text": (
        {"messages": [user([{"type": "text"}])]},
        400,
        "invalid",
        "messages[0].content",
    ),
    "audio in": ({"messages": [user([AUDIO])]}, 400, "invalid", "messages[0].content"),
    "audio out": ({"modalities": ["text", "audio"]}, 400, "invalid", "modalities"),
    "modalities as a number": ({"modalities": 5}, 400, "invalid", "modalities"),
    "a voice": ({"audio": {"voice": "alloy", "format": "wav"}}, 400, "invalid", "modalities"),
    "two answers": ({"n": 2}, 400, "invalid", "n"),
    "no answer": ({"n": 0}, 400, "invalid", "n"),
    "a NUL": ({"messages": [user("a\0b")]}, 400, "invalid", "messages[0].content"),
    "half a character": ({"messages": [user("a\ud800b")]}, 400, "invalid", "messages[0].content"),
    "too long": ({"messages": [user("x" * 32_001)]}, 400, "invalid", "messages[0].content"),
    "max_tokens as a text": ({"max_tokens": "many"}, 400, "invalid", "max_tokens"),
    "max_tokens of 0": ({"max_completion_tokens": 0}, 400, "invalid", "max_completion_tokens"),
    "stream as a text": ({"stream": "yes"}, 400, "invalid", "stream"),
    "stream_options as a text": ({"stream_options": "all"}, 400, "invalid", "stream_options"),
    "metadata as a list": ({"metadata": []}, 400, "invalid", "metadata"),
    "an id that is a list": ({"metadata": {"chat_id": []}}, 400, "invalid", "metadata.chat_id"),
    "calls that are no list": (
        {"messages": [{"role": "assistant", "content": "", "tool_calls": "x"}, *HELLO]},
        400,
        "invalid",
        "messages[0].tool_calls",
    ),
}
HAS_OWN_MODEL = {"a list", "no model", "a model that is no text", "an unknown model"}
HAS_NO_MESSAGES = {"no messages", "empty messages", "messages as a text"}


@pytest.mark.parametrize("name", BODIES)
def test_a_body_that_cannot_be_used_is_refused(
    name: str, bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    body, status, code, param = BODIES[name]
    if name not in HAS_OWN_MODEL:
        body = {"model": "verse"} | body
        if name not in HAS_NO_MESSAGES:
            body = {"messages": HELLO} | body
    reply = bearer.post(body)
    assert (reply.status, reply.code) == (status, code), reply.body
    assert reply.body["error"]["param"] == param
    assert set(reply.body["error"]) == {"message", "type", "code", "param"}
    assert (stored(), StandaloneChat.objects.count()) == ([], 0)
    assert fake_openai.chat.requests == []


@pytest.mark.parametrize("number", ["", "seven", "-1", "²", "1.0"])
def test_a_chat_that_is_no_number_is_refused(number: str, bearer: Bearer) -> None:
    reply = bearer.ask(user("Hi"), headers={"X-Verse-Chat": number})
    assert reply.status == (200 if number == "" else 400)


@pytest.mark.parametrize(
    ("headers", "status", "code"),
    [
        ({}, 401, "not_authenticated"),
        ({"Authorization": "Bearer wrong"}, 401, "not_authenticated"),
        ({"Authorization": "Token {key}"}, 401, "not_authenticated"),
    ],
)
def test_only_a_bearers_token_is_accepted(
    headers: dict[str, str], status: int, code: str, bearer: Bearer
) -> None:
    bearer.api.credentials()
    bearer.api.force_login(bearer.user)
    headers = {name: value.format(key=bearer.key) for name, value in headers.items()}
    reply = bearer.ask(user("Hi"), headers=headers)
    assert (reply.status, reply.code, reply.headers["WWW-Authenticate"]) == (status, code, "Bearer")


def test_other_addresses_and_methods_have_openais_errors(bearer: Bearer) -> None:
    missing = bearer.api.get("/v1/embeddings")
    assert (missing.status_code, missing.json()["error"]["code"]) == (404, "not_found")
    wrong = bearer.api.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.data["error"]["code"]) == (405, "method_not_allowed")
    form = bearer.api.post("/v1/chat/completions", {"model": "verse"}, format="multipart")
    assert (form.status_code, form.data["error"]["code"]) == (415, "unsupported_media_type")
    cut = bearer.api.post("/v1/chat/completions", "{", content_type="application/json")
    assert (cut.status_code, cut.data["error"]["code"]) == (400, "parse_error")
    deep = "[" * 100_000
    nested = bearer.api.post("/v1/chat/completions", deep, content_type="application/json")
    assert (nested.status_code, nested.data["error"]["code"]) == (400, "parse_error")
    model = bearer.api.get("/v1/models/gpt-4")
    assert (model.status_code, model.data["error"]["code"]) == (404, "model_not_found")


@pytest.mark.parametrize("client_id", ["x" * 5_000, "tab\there", "ü" * 300, "' OR 1=1 --", "%s"])
def test_any_id_of_a_client_is_one(client_id: str, bearer: Bearer) -> None:
    first = bearer.ask(user("One"), metadata={"chat_id": client_id})
    again = bearer.ask(user("One"), metadata={"chat_id": client_id})
    assert first.chat == again.chat
    assert bearer.ask(user("One"), metadata={"chat_id": client_id + "!"}).chat != first.chat
