"""Streams, repeated requests, and errors, in this process."""

from typing import Any

import pytest
from pytest_django import Settings

from chat.models import RunningAnswer, StandaloneChat, StandaloneChatMessage
from chat.openai_api.tests.support import Bearer, assistant, stored, texts, user
from fake_openai import Answer, CutAfter, Deltas, FakeOpenAI, Hang, Refuse
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}


def content(events: list[Any]) -> str:
    return "".join(delta(event).get("content") or "" for event in events if event != "[DONE]")


def delta(event: Any) -> dict[str, Any]:
    return event["choices"][0]["delta"] if event.get("choices") else {}


def test_a_stream_has_a_role_pieces_a_reason_and_an_end(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Answer("One “two”\nthree."))
    events = bearer.events(user("Count"))
    assert delta(events[0]) == {"role": "assistant", "content": ""}
    assert content(events) == "One “two”\nthree."
    assert (delta(events[-2]), events[-2]["choices"][0]["finish_reason"]) == ({}, "stop")
    assert events[-1] == "[DONE]"
    assert {event["object"] for event in events[:-1]} == {"chat.completion.chunk"}
    assert len({event["id"] for event in events[:-1]}) == 1
    assert all("usage" not in event for event in events[:-1])


def test_the_last_chunk_has_the_servers_usage(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    fake_openai.chat.script(Deltas(({"content": "Hi."},), usage=USAGE))
    events = bearer.events(user("Hello"), stream_options={"include_usage": True})
    assert (events[-2]["choices"], events[-2]["usage"]) == ([], USAGE)
    assert fake_openai.chat.requests[-1].fields["stream_options"] == {"include_usage": True}


def test_without_the_servers_usage_tokens_are_counted(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(Deltas(({"content": "One two three."},)))
    usage = bearer.ask(user("Hello")).body["usage"]
    assert usage["completion_tokens"] == 4
    assert usage["prompt_tokens"] > 50
    assert usage["total_tokens"] == usage["prompt_tokens"] + 4


def test_reasoning_comes_apart_and_is_not_stored(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    thoughts = Deltas(({"reasoning_content": "A gree"}, {"reasoning": "ting."}, {"content": "Hi."}))
    fake_openai.chat.script(thoughts, thoughts)
    message = bearer.ask(user("Hello")).body["choices"][0]["message"]
    assert (message["reasoning_content"], message["content"]) == ("A greeting.", "Hi.")
    events = bearer.events(user("Hello"))
    reasoning = [delta(event).get("reasoning_content", "") for event in events[:-1]]
    assert ("".join(reasoning), content(events)) == ("A greeting.", "Hi.")
    assert texts() == ["Hello", "Hi."] * 2
    sent_back = assistant("Hi.", reasoning_content="A greeting.")
    bearer.ask(user("Hello"), sent_back, user("More"))
    assert "A greeting." not in str(fake_openai.chat.requests[-1].fields)


@pytest.mark.parametrize(
    ("behaviour", "status", "code"),
    [
        (Refuse(401), 502, "llm_error"),
        (Refuse(429, "insufficient_quota"), 502, "llm_error"),
        (CutAfter("So far"), 502, "llm_error"),
        (Hang(), 504, "llm_timeout"),
    ],
)
def test_the_models_failure_has_openais_form(
    behaviour: Any,
    status: int,
    code: str,
    bearer: Bearer,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_TIMEOUT_S = 2 if status == 504 else PATIENCE_S
    fake_openai.chat.script(behaviour, behaviour)
    reply = bearer.ask(user("Hello"))
    assert (reply.status, reply.code) == (status, code)
    assert reply.body["error"]["type"] == "server_error"
    events = bearer.events(user("Hello"))
    assert events[-1]["error"]["code"] == code
    assert "[DONE]" not in events
    assert [role for role, _ in stored()] == ["user", "assistant"]


def test_without_a_model_the_question_is_saved(bearer: Bearer, settings: Settings) -> None:
    settings.LLM_CONFIGURED = False
    reply = bearer.ask(user("Hello"))
    assert (reply.status, reply.code) == (503, "llm_not_configured")
    streamed = bearer.api.post(
        "/v1/chat/completions",
        {"model": "verse", "messages": [user("Hello")], "stream": True},
        format="json",
    )
    assert (streamed.status_code, streamed.data["error"]["code"]) == (503, "llm_not_configured")
    assert stored() == [("user", "Hello"), ("assistant", "")]


def test_a_key_replays_the_answer_whatever_chat_it_is_in(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    headers = {"Idempotency-Key": "k" * 255}
    first = bearer.ask(user("Hello"), headers=headers)
    again = bearer.ask(user("Hello"), headers=headers)
    assert (again.text, again.chat) == (first.text, first.chat)
    assert again.headers["Idempotent-Replayed"] == "true"
    assert again.body["usage"]["total_tokens"] == 0
    assert len(fake_openai.chat.requests) == 1
    streamed = bearer.api.post(
        "/v1/chat/completions",
        {"model": "verse", "messages": [user("Hello")]},
        format="json",
        headers=headers,
    )
    assert streamed.status_code == 200
    assert StandaloneChat.objects.count() == 1


def test_a_key_with_another_request_is_refused(bearer: Bearer) -> None:
    headers = {"Idempotency-Key": "key"}
    bearer.ask(user("Hello"), headers=headers)
    reply = bearer.ask(user("Hello!"), headers=headers)
    assert (reply.status, reply.code) == (422, "key_reused")
    assert bearer.ask(user("Hello"), headers={"Idempotency-Key": "k" * 256}).status == 400


def test_a_key_tries_again_after_a_failure(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    headers = {"Idempotency-Key": "key"}
    fake_openai.chat.script(Refuse(500))
    assert bearer.ask(user("Hello"), headers=headers).status == 502
    assert bearer.ask(user("Hello"), headers=headers).text == "You said: Hello"
    assert texts() == ["Hello", "You said: Hello"]


def test_a_chat_whose_answer_runs_is_409(bearer: Bearer) -> None:
    first = bearer.ask(user("One"))
    chat = StandaloneChat.objects.get()
    message = StandaloneChatMessage.objects.in_order().last()
    assert message is not None
    RunningAnswer.objects.create(user=bearer.user, chat=chat, message_id=message.pk)
    headers = {"X-Verse-Chat": str(first.chat)}
    reply = bearer.ask(user("Two"), headers=headers)
    assert (reply.status, reply.code) == (409, "in_progress")
    assert reply.headers["x-should-retry"] == "false"
    tools = [{"type": "function", "function": {"name": "clock"}}]
    assert bearer.ask(user("Two"), headers=headers, tools=tools).status == 409
    assert len(stored()) == 2


def test_streams_that_are_not_stored_count_as_running(bearer: Bearer, settings: Settings) -> None:
    settings.STREAMS_PER_USER = 0
    refused = bearer.ask(user("A title"), headers={"X-Verse-Memory": "off"})
    assert (refused.status, refused.code) == (429, "too_many_streams")
