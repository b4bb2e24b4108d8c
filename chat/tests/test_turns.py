"""Turns through the API, answered over HTTP by the fake: how each can end, and what is saved."""

import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import OperationalError
from django.utils import timezone
from pytest_django import Settings
from rest_framework.exceptions import NotFound
from rest_framework.test import APIClient

from chat.answers import heartbeat, idempotency, periodic, runner, save_answer, turns
from chat.answers.live_answer import LiveAnswer
from chat.memory.embed import finish_embedding_jobs
from chat.memory.recalled import Memory
from chat.models import (
    IdempotencyKey,
    Message,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
    Status,
)
from chat.services import ChatService
from chat.tests.support import Api
from fake_openai import (
    CONTROLS,
    Answer,
    Big,
    Controls,
    CutAfter,
    Drop,
    Empty,
    EndsWithoutDone,
    ErrorEvent,
    FakeOpenAI,
    Garbled,
    Hang,
    HangAfter,
    Html,
    Refuse,
    RefuseByContent,
    Trickle,
)
from retrieval.queries import value
from tests.support import PATIENCE_S
from verse.environment import Rate

pytestmark = pytest.mark.django_db(transaction=True)
# A transaction that is rolled back does not give the ids of its rows back.
LAST_ID = "SELECT last_value FROM standalone_chat_messages_id_seq"


def post(
    client: APIClient, chat: StandaloneChat, content: Any = "Hello", *, key: str | None = None
) -> Any:
    """POST a message."""
    headers = {"Idempotency-Key": key} if key is not None else None
    return client.post(
        f"/api/chats/{chat.pk}/messages/", {"content": content}, format="json", headers=headers
    )


def saved_messages() -> list[tuple[str, str, str]]:
    """Role, content and status of all messages, oldest first."""
    return list(StandaloneChatMessage.objects.in_order().values_list("role", "content", "status"))


def test_an_answer_is_saved_as_the_model_sent_it(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(
        Answer("Hello,\n  Alice 🦊.", split_bytes=3, comments=True, line_end="\r\n")
    )
    response = post(api(alice), chat, " Hello? ")
    assert response.status_code == 201
    assert response.data["assistant_message"]["content"] == "Hello,\n  Alice 🦊."
    assert saved_messages() == [
        ("user", " Hello? ", "complete"),
        ("assistant", "Hello,\n  Alice 🦊.", "complete"),
    ]
    assert fake_openai.chat.requests[0].last_user_text == " Hello? "
    assert not RunningAnswer.objects.exists()


@pytest.mark.parametrize(
    ("behaviour", "status", "code", "text"),
    [
        (Refuse(401), 502, "llm_error", ""),
        (Refuse(429, "insufficient_quota"), 502, "llm_error", ""),
        (Refuse(500), 502, "llm_error", ""),
        (RefuseByContent(), 502, "llm_error", ""),
        (Drop(reset=True), 502, "llm_error", ""),
        (Html(status=200), 502, "llm_error", ""),
        (Empty(), 502, "llm_error", ""),
        (Answer(" \n "), 502, "llm_error", None),
        (Garbled(), 502, "llm_error", None),
        (Hang(), 504, "llm_timeout", ""),
        (Trickle("Slowly", every_s=0.2), 504, "llm_timeout", ""),
        (HangAfter("So far"), 504, "llm_timeout", "So far"),
        (CutAfter("So far", reset=True), 502, "llm_error", "So far"),
        (CutAfter("So far", reset=False), 502, "llm_error", "So far"),
        (EndsWithoutDone("So far"), 502, "llm_error", "So far"),
        (ErrorEvent("So far"), 502, "llm_error", "So far"),
    ],
)
def test_a_failed_answer_has_a_status_and_its_key_retries(
    behaviour: Any,
    status: int,
    code: str,
    text: str | None,
    alice: User,
    chat: StandaloneChat,
    api: Api,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_TIMEOUT_S = 2 if code == "llm_timeout" else PATIENCE_S
    fake_openai.chat.script(behaviour)
    client = api(alice)
    failed = post(client, chat, key="k")
    assert (failed.status_code, failed.data["code"]) == (status, code)
    assert failed.data["user_message"]["content"] == "Hello"
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert answer.status == (Status.INTERRUPTED if answer.content.strip() else Status.FAILED)
    assert text is None or answer.content == text
    settings.LLM_TIMEOUT_S = PATIENCE_S
    fake_openai.chat.default = Answer("At last.")
    assert post(client, chat, key="k").status_code == 201
    assert saved_messages() == [
        ("user", "Hello", "complete"),
        ("assistant", "At last.", "complete"),
    ]
    assert StandaloneChatMessage.objects.in_order()[1].pk == answer.pk


def test_a_slow_answer_that_is_never_silent_does_not_time_out(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_TIMEOUT_S = 2
    fake_openai.chat.script(Answer("word " * 30, tokens_per_s=10))
    assert post(api(alice), chat).status_code == 201  # three seconds in all, but never silent


def test_odd_answers_are_stored_safely(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    fake_openai.chat.script(Controls(), Big(1_000_000))
    controls = post(client, chat).data["assistant_message"]["content"]
    assert "\x00" in CONTROLS
    assert "\x00" not in controls
    controls.encode()  # no lone surrogate is left
    assert len(post(client, chat).data["assistant_message"]["content"]) == 1_000_000


def test_without_a_model_the_message_is_saved_and_503_returned(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_CONFIGURED = False
    for accept in ("application/json", "text/event-stream"):
        client = api(alice)
        response = client.post(
            f"/api/chats/{chat.pk}/messages/",
            {"content": "Hello"},
            format="json",
            HTTP_ACCEPT=accept,
        )
        assert (response.status_code, response.json()["code"]) == (503, "llm_not_configured")
    assert [row for row in saved_messages() if row[0] == "user"] == [
        ("user", "Hello", "complete")
    ] * 2
    assert fake_openai.requests == []


def test_a_key_replays_the_first_answer_and_refuses_other_content(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    first = post(client, chat, key="k")
    replay = post(client, chat, key="k")
    assert replay.json() == first.json()
    assert replay.headers["Idempotent-Replayed"] == "true"
    assert "Idempotent-Replayed" not in first.headers
    other = post(client, chat, "Something else", key="k")
    assert (other.status_code, other.data["code"]) == (422, "key_reused")
    assert len(fake_openai.chat.requests) == 1
    assert (
        post(
            client, StandaloneChat.objects.create(user=alice), "Something else", key="k"
        ).status_code
        == 201
    )


@pytest.mark.parametrize("key", ["", "x" * 256])
def test_an_empty_or_too_long_key_is_refused(
    key: str, alice: User, chat: StandaloneChat, api: Api
) -> None:
    response = post(api(alice), chat, key=key)
    assert (response.status_code, response.data["code"]) == (400, "invalid")
    assert saved_messages() == []


def test_a_key_expires_after_a_day(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    post(client, chat, key="k")
    IdempotencyKey.objects.update(created_at=timezone.now() - idempotency.KEY_LIFETIME)
    assert "Idempotent-Replayed" not in post(client, chat, "Something else", key="k").headers
    IdempotencyKey.objects.update(created_at=timezone.now() - idempotency.KEY_LIFETIME)
    assert idempotency.delete_expired_keys() == 1


def test_a_refused_message_leaves_no_dead_rows(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.THROTTLE_MESSAGES = Rate(1, 60)
    assert post(api(alice), chat).status_code == 201
    inserted = value(LAST_ID)
    refused = post(api(alice), chat)
    assert (refused.status_code, refused.json()["code"]) == (429, "throttled")
    assert value(LAST_ID) == inserted


@pytest.mark.parametrize(
    "content", [None, "", "  \n", 5, ["a"], "a\x00b", "x" * 32_001, {"a": 1}, True]
)
def test_unusable_content_is_refused_and_nothing_is_saved(
    content: Any, alice: User, chat: StandaloneChat, api: Api
) -> None:
    response = post(api(alice), chat, content)
    assert (response.status_code, response.data["code"]) == (400, "invalid")
    assert response.data["content"]
    assert saved_messages() == []


def test_malformed_bodies_are_refused(alice: User, chat: StandaloneChat, api: Api) -> None:
    client, url = api(alice), f"/api/chats/{chat.pk}/messages/"
    broken = client.post(url, '{"content": ', content_type="application/json")
    assert (broken.status_code, broken.json()["code"]) == (400, "parse_error")
    surrogate = client.post(url, '{"content": "\\ud800"}', content_type="application/json")
    assert (surrogate.status_code, surrogate.json()["code"]) == (400, "invalid")
    form = client.post(url, "content=a", content_type="application/x-www-form-urlencoded")
    assert form.status_code == 415
    missing = client.post(url, "{}", content_type="application/json")
    assert missing.json()["content"] == ["This field is required."]
    assert saved_messages() == []


def test_the_history_is_whole_turns_without_failed_answers(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    client = api(alice)
    fake_openai.chat.script(Answer("One."), Refuse(500), Answer("Three."))
    for content in ("First", "Second", "Third"):
        post(client, chat, content)
    sent = [part["content"] for part in fake_openai.chat.requests[2].messages]
    assert sent[1:] == ["First", "One.", "Third"]
    settings.CHAT_HISTORY_LIMIT = 2
    post(client, chat, "Fourth")
    assert [part["content"] for part in fake_openai.chat.requests[3].messages][1:] == [
        "Third",
        "Three.",
        "Fourth",
    ]


def test_a_passage_is_part_of_the_prompt(alice: User, api: Api, fake_openai: FakeOpenAI) -> None:
    passage = Passage.objects.create(
        user=alice, reference="John 3:16", text="For God so loved the world"
    )
    response = api(alice).post(
        f"/api/passages/{passage.pk}/messages/", {"content": "Why?"}, format="json"
    )
    assert response.status_code == 201
    system = fake_openai.chat.requests[0].messages[0]["content"]
    assert "John 3:16" in system
    assert "For God so loved the world" in system


def test_a_too_long_message_is_cut_in_the_prompt_only(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_CONTEXT_TOKENS, settings.LLM_MAX_TOKENS = 1000, 200
    content = "begin " + "middle " * 2000 + "end"
    response = post(api(alice), chat, content, key="k")
    assert response.data["truncated"] is True
    assert response.data["user_message"]["content"] == content
    sent = fake_openai.chat.requests[0].last_user_text
    assert sent.startswith("begin")
    assert sent.endswith("end")
    assert "tokens left out" in sent
    assert post(api(alice), chat, content, key="k").json()["truncated"] is True
    assert "truncated" not in post(api(alice), chat, "short").data


def test_regenerate_keeps_the_id_and_replaces_the_text(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    fake_openai.chat.script(Answer("One."), Answer("Two."), Answer("Two again."))
    first = post(client, chat, "First").data["assistant_message"]["id"]
    second = post(client, chat, "Second").data["assistant_message"]["id"]
    again = client.post(f"/api/chats/{chat.pk}/messages/{second}/regenerate/")
    assert again.status_code == 201
    assert again.data["assistant_message"] | {"created_at": 0} == {
        "id": second,
        "role": "assistant",
        "content": "Two again.",
        "status": "complete",
        "created_at": 0,
        "context": [],
    }
    assert again.data["user_message"]["content"] == "Second"
    assert [part["content"] for part in fake_openai.chat.requests[2].messages][1:] == [
        "First",
        "One.",
        "Second",
    ]
    not_last = client.post(f"/api/chats/{chat.pk}/messages/{first}/regenerate/")
    assert (not_last.status_code, not_last.data["code"]) == (400, "not_last")


def test_an_answer_whose_question_was_deleted_is_not_regenerated(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    fake_openai.chat.script(Answer("One."), Answer("Two."))
    post(client, chat, "First")
    second = post(client, chat, "Second").data
    url = f"/api/chats/{chat.pk}/messages/"
    client.delete(f"{url}{second['user_message']['id']}/")
    again = client.post(f"{url}{second['assistant_message']['id']}/regenerate/")
    assert (again.status_code, again.json()["code"]) == (400, "not_last")
    assert chat.messages.get(pk=second["assistant_message"]["id"]).content == "Two."
    assert len(fake_openai.chat.requests) == 2


def test_an_edit_of_a_message_that_is_deleted_meanwhile_is_not_found(
    chat: StandaloneChat,
) -> None:
    message = chat.messages.create(user=chat.user, role="user", content="Hello")
    chat.messages.filter(pk=message.pk).delete()
    with pytest.raises(NotFound):
        ChatService(chat).edit(message, "Goodbye")


def test_messages_are_edited_and_deleted_by_their_rules(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(alice)
    turn = post(client, chat).data
    own, answer = (
        f"/api/chats/{chat.pk}/messages/{turn[name]['id']}/"
        for name in ("user_message", "assistant_message")
    )
    assert (
        client.patch(own, {"content": "Hello again"}, format="json").data["content"]
        == "Hello again"
    )
    assert StandaloneChatMessage.objects.get(role="user").edited_at is not None
    refused = client.patch(answer, {"content": "I never said that"}, format="json")
    assert (refused.status_code, refused.data["code"]) == (403, "permission_denied")
    assert client.delete(answer).status_code == 204
    assert client.get(answer).status_code == 404
    assert client.delete(f"/api/chats/{chat.pk}/").status_code == 204
    assert saved_messages() == []


def test_a_message_cannot_be_edited_or_deleted_while_it_is_answered(
    alice: User, chat: StandaloneChat, api: Api
) -> None:
    turn = turns.start(chat, "Hello", key=None)
    client = api(alice)
    own, answer = (
        f"/api/chats/{chat.pk}/messages/{message.pk}/" for message in (turn.question, turn.answer)
    )
    assert client.patch(own, {"content": "Changed"}, format="json").status_code == 409
    assert client.delete(own).status_code == 409
    assert client.delete(answer).status_code == 409
    assert client.post(f"{answer}regenerate/").status_code == 409
    RunningAnswer.objects.update(text="So far")
    assert client.get(answer).data["content"] == "So far"
    assert client.delete(f"/api/chats/{chat.pk}/").status_code == 204
    assert not RunningAnswer.objects.exists()


def test_an_answer_of_a_dead_process_is_ended_as_interrupted(chat: StandaloneChat) -> None:
    turn = turns.start(chat, "Hello", key="k")
    RunningAnswer.objects.update(text="So far")
    heartbeat.end_abandoned()
    assert saved_messages()[1] == ("assistant", "", "streaming")
    RunningAnswer.objects.update(
        alive_at=timezone.now() - timedelta(seconds=heartbeat.ABANDONED_S + 1)
    )
    heartbeat.end_abandoned()
    assert saved_messages()[1] == ("assistant", "So far", "interrupted")
    late = save_answer.finish(
        turn.answer, "Too late", save_answer.Ending(Status.COMPLETE), running_id=turn.running_id
    )
    assert late is not None
    assert late.content == "So far"


def test_a_crash_of_the_database_takes_no_answers_context(chat: StandaloneChat) -> None:
    """The context is stored without waiting for the disk; then the answer's process dies, too."""
    turn = turns.start(chat, "Hello", key=None)
    assert turn.running_id
    context = [{"kind": "chat", "id": turn.question.pk, "score": 1.0}]
    save_answer.save_context(turn.answer, context)
    StandaloneChatMessage.objects.update(context=None)  # as if it was lost
    live = LiveAnswer(turn, running_id=turn.running_id)
    live.add("So far")
    heartbeat.Heartbeat({turn.running_id: live}, set())._write([turn.running_id])
    heartbeat.end_abandoned(seconds=-1)
    answer = StandaloneChatMessage.objects.get(role="assistant")
    assert (answer.status, answer.content, answer.context) == ("interrupted", "So far", context)


def test_stop_ends_an_answer_whose_process_died(
    alice: User, chat: StandaloneChat, api: Api
) -> None:
    turn = turns.start(chat, "Hello", key="k")
    RunningAnswer.objects.update(text="So far")
    stopped = api(alice).post(f"/api/chats/{chat.pk}/messages/{turn.answer.pk}/stop/")
    assert (stopped.data["status"], stopped.data["content"]) == ("interrupted", "So far")
    assert post(api(alice), chat, key="k").headers["Idempotent-Replayed"] == "true"


def test_a_turn_in_a_deleted_conversation_is_not_found(chat: StandaloneChat) -> None:
    StandaloneChat.objects.filter(pk=chat.pk).delete()
    with pytest.raises(NotFound):
        turns.start(chat, "Hello", key=None)


def test_the_heartbeat_survives_an_unexpected_error(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []

    def broken() -> None:
        beats.append(time.monotonic())
        raise RuntimeError("not a failure of the database's")

    monkeypatch.setattr(heartbeat, "end_abandoned", broken)
    monkeypatch.setattr(heartbeat, "END_ABANDONED_EVERY_S", 0)
    run_loop_until(lambda: len(beats) >= 3)


def test_a_failing_periodic_task_is_named_and_others_go_on(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    runs: list[str] = []

    def away() -> None:
        raise OperationalError("no connection")

    def broken() -> None:
        raise RuntimeError("not a failure of the database's")

    def works() -> None:
        runs.append("works")

    monkeypatch.setattr(periodic, "PERIODIC_TASKS", {away: 0.0, broken: 0.0, works: 0.0})
    run_loop_until(lambda: len(runs) >= 2)
    messages = [record.getMessage() for record in caplog.records]
    assert f"Periodic task {__name__}.away failed: OperationalError" in messages
    assert f"Periodic task {__name__}.broken failed" in messages


def test_a_slow_periodic_task_does_not_delay_the_heartbeat(
    chat: StandaloneChat, monkeypatch: pytest.MonkeyPatch
) -> None:
    beats: list[float] = []
    slow_ended = threading.Event()
    monkeypatch.setattr(periodic, "PERIODIC_TASKS", {lambda: slow_ended.wait(10): 0.0})
    monkeypatch.setattr(heartbeat, "end_abandoned", lambda: beats.append(time.monotonic()))
    monkeypatch.setattr(heartbeat, "END_ABANDONED_EVERY_S", 0)
    run_loop_until(lambda: len(beats) >= 5, finally_=slow_ended.set)
    assert beats[-1] - beats[0] < 5


def run_loop_until(
    done: Callable[[], bool], *, finally_: Callable[[], object] = lambda: None
) -> None:
    """Run a runner of its own until ``done``."""
    own = runner.Runner()
    until = time.monotonic() + PATIENCE_S
    while not done() and time.monotonic() < until:
        time.sleep(0.05)
    finally_()
    own.close()
    assert done()


def test_the_next_turn_reuses_the_connection_to_the_model(
    alice: User, chat: StandaloneChat, api: Api, fake_openai: FakeOpenAI
) -> None:
    post(api(alice), chat)
    before = set(fake_openai._connections)
    post(api(alice), chat)
    assert len(fake_openai.chat.requests) == 2
    assert before
    assert set(fake_openai._connections) == before


def test_a_subclass_of_the_service_sets_the_context_limit_of_its_turns(
    alice: User, api: Api, remembering: FakeOpenAI
) -> None:
    class ShortMemory(ChatService):
        RAG_CONTEXT_LIMIT = 1

    question = "What is my dog called?"
    for content in ("My dog is called Biscuit.", "The dog has a brother called Toast."):
        post(api(alice), StandaloneChat.objects.create(user=alice), content)
    finish_embedding_jobs()
    counts = [
        len(memories_given(service(StandaloneChat.objects.create(user=alice)), question))
        for service in (ChatService, ShortMemory)
    ]
    assert counts[0] > 1
    assert counts[1] == 1


def test_a_subclass_of_the_service_chooses_the_memories_of_its_turns(
    alice: User, chat: StandaloneChat, remembering: FakeOpenAI
) -> None:
    fact = chat.messages.create(user=alice, role="user", content="My dog is called Biscuit.")

    class Fixed(ChatService):
        def _get_relevant_context(
            self, question: Message, history: Sequence[Message] = ()
        ) -> list[Memory]:
            return [Memory(fact, 1.0)]

    service = Fixed(StandaloneChat.objects.create(user=alice))
    assert [memory.message for memory in memories_given(service, "And the weather?")] == [fact]
    assert fact.content in str(remembering.chat.requests[-1].messages[-1]["content"])


def memories_given(service: ChatService, content: str) -> list[Memory]:
    """The memories in the prompt of a new turn."""
    live = service.reply_to(content).live
    assert live is not None
    live.saved.result(timeout=PATIENCE_S)
    finish_embedding_jobs()
    return live.memories


def test_the_services_context_limit_bounds_what_an_answer_is_given(
    alice: User, api: Api, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api(alice)
    for content in ("My dog is called Biscuit.", "The dog has a brother called Toast."):
        post(client, StandaloneChat.objects.create(user=alice), content)
    finish_embedding_jobs()
    chat = StandaloneChat.objects.create(user=alice)
    question = chat.messages.create(user=alice, role="user", content="What is my dog called?")
    assert len(ChatService(chat)._get_relevant_context(question)) > 1
    monkeypatch.setattr(ChatService, "RAG_CONTEXT_LIMIT", 1)
    (memory,) = ChatService(chat)._get_relevant_context(question)
    assert [memory.message.pk] == [
        recalled["message_id"] for recalled in post(client, chat, question.content).data["context"]
    ]
