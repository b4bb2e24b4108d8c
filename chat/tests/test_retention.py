"""RETENTION_DAYS: what is older is deleted everywhere, and what users keep stays."""

import asyncio
import json
import threading
import time
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.utils import timezone
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.doctor_retention import retention_runs
from chat.memory.embed import finish_embedding_jobs
from chat.models import (
    IdempotencyKey,
    Passage,
    RetentionState,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.retention import expired, kept, sweep
from chat.tests.model_server_support import joined
from fake_openai import Answer, FakeOpenAI
from retrieval import audit
from retrieval.models import MessageMemory
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]
DAYS = 30
OLD = timedelta(days=DAYS, minutes=1)
HOLD_MEMORY = "SELECT FROM message_memories WHERE id = %s * 2 FOR UPDATE"  # MessageTable.pack_ref
HOLD_MESSAGE = "SELECT FROM standalone_chat_messages WHERE id = %s FOR UPDATE"
CANARY = "My zebra is called Quagmire and lives in Trieste."


@pytest.fixture(autouse=True)
def retention(settings: Settings) -> None:
    settings.RETENTION_DAYS = DAYS


def run(*arguments: str) -> dict[str, int]:
    out = StringIO()
    call_command("expire_conversations", *arguments, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def age(conversation: Any, by: timedelta = OLD) -> None:
    """Let the conversation and its messages be so old."""
    then = timezone.now() - by
    conversation.messages.update(created_at=then)
    type(conversation).objects.filter(pk=conversation.pk).update(updated_at=then)


def say(client: APIClient, chat: StandaloneChat, content: str, **headers: str) -> Any:
    url = f"/api/chats/{chat.pk}/messages/"
    turn = client.post(url, {"content": content}, format="json", headers=headers)
    assert turn.status_code == 201, turn.content
    finish_embedding_jobs()
    return turn.json()


def export(client: APIClient) -> str:
    response: Any = client.get("/api/memory/export/")
    return asyncio.run(joined(response.streaming_content)).decode()


def chat_of(user: User, messages: int = 2) -> StandaloneChat:
    """An old chat."""
    chat = StandaloneChat.objects.create(user=user)
    roles = ("user", "assistant")
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(user=user, conversation=chat, role=roles[n % 2], content=f"Text {n}")
        for n in range(messages)
    )
    age(chat)
    return chat


def test_what_expires_is_deleted_everywhere(
    client: APIClient, alice: User, remembering: FakeOpenAI
) -> None:
    remembering.chat.default = Answer("I see.")
    old, new = (StandaloneChat.objects.create(user=alice) for _ in range(2))
    say(client, old, CANARY, **{"Idempotency-Key": "once"})
    answer = say(client, new, "What is my zebra called?")
    assert CANARY in str(answer["context"])
    age(old)
    assert run("--dry-run") == {"conversations": 1, "messages": 2}
    assert old.messages.count() == 2
    assert run() == {"conversations": 1, "messages": 2}
    assert client.get(f"/api/chats/{old.pk}/").status_code == 404
    for address in ("/api/chats/", f"/api/chats/{new.pk}/messages/"):
        assert "Quagmire" not in client.get(address).content.decode()
    results = client.get("/api/memory/search/?limit=50&q=Quagmire+zebra").content.decode()
    assert "Quagmire" not in results + export(client)
    assert not IdempotencyKey.objects.filter(key="once").exists()
    assert MessageMemory.objects.filter(user_id=alice.pk).count() == new.messages.count()
    again = say(client, new, "What is my zebra called, once more?")
    assert "Quagmire" not in str(again) + str(remembering.chat.requests[-1].messages)
    assert run() == {"conversations": 0, "messages": 0}


@pytest.mark.parametrize(
    "touch",
    [
        {"title": "Another title"},
        {"memory": False},
    ],
    ids=["title", "memory"],
)
def test_a_new_title_and_a_switch_of_memory_are_touches(
    touch: dict[str, Any], client: APIClient, alice: User
) -> None:
    chat = chat_of(alice)
    assert client.patch(f"/api/chats/{chat.pk}/", touch, format="json").status_code == 200
    assert run() == {"conversations": 0, "messages": 0}


def test_a_new_message_an_edit_and_a_running_answer_hold_a_conversation(
    client: APIClient, alice: User, fake_openai: FakeOpenAI
) -> None:
    imported, edited, running = (chat_of(alice) for _ in range(3))
    imported.messages.filter(role="assistant").update(created_at=timezone.now())
    message = edited.messages.get(role="user").pk
    url = f"/api/chats/{edited.pk}/messages/{message}/"
    assert client.patch(url, {"content": "Corrected"}, format="json").status_code == 200
    RunningAnswer.objects.create(user=alice, chat=running, message_id=1)
    assert run() == {"conversations": 0, "messages": 0}


def test_kept_conversations_stay_and_keeping_is_no_touch(
    client: APIClient, bob: User, alice: User, api: Any
) -> None:
    chat, passage = chat_of(alice), Passage.objects.create(user=alice, reference="A", text="B")
    age(passage)
    for row in (chat, passage):
        address = f"/api/{row.kind}s/{row.pk}/"
        before = client.get(address).json()
        assert before["keep"] is False
        assert api(bob).patch(address, {"keep": True}, format="json").status_code == 404
        after = client.patch(address, {"keep": True}, format="json").json()
        assert after == before | {"keep": True}
        assert client.patch(address, {"keep": True}, format="json").status_code == 200
        assert client.get(address).json() == after
    assert export(client).count("kept_conversations") == 2
    assert run("--dry-run") == run() == {"conversations": 0, "messages": 0}
    client.patch(f"/api/chats/{chat.pk}/", {"keep": False}, format="json")
    assert run() == {"conversations": 1, "messages": 2}
    assert client.delete(f"/api/passages/{passage.pk}/").status_code == 204


def test_keep_is_refused_where_a_conversation_is_created(client: APIClient) -> None:
    answer = client.post("/api/chats/", {"title": "Mine", "keep": True}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert not StandaloneChat.objects.exists()


def test_without_days_nothing_is_deleted(alice: User, settings: Settings) -> None:
    chat_of(alice)
    settings.RETENTION_DAYS = None
    with pytest.raises(CommandError, match="RETENTION_DAYS is not set"):
        run()
    sweep.begin()
    assert sweep.sweep().conversations == 0
    assert StandaloneChat.objects.count() == 1
    assert audit.lines() == []


def test_conversations_are_deleted_whole_in_small_transactions(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired, "MAX_MESSAGES", 7)
    sizes = {chat_of(alice, messages).pk: messages for messages in (3, 25, 0, 3, 1, 5)}
    chat_of(alice).messages.update(created_at=timezone.now())
    counts = expired.Counts()
    transactions = []
    delete_batch = expired._delete_batch

    def count(*args: Any, **options: Any) -> Any:
        before = counts.messages
        result = delete_batch(*args, **options)
        transactions.append(counts.messages - before)
        return result

    monkeypatch.setattr(expired, "_delete_batch", count)
    for _ in expired.delete(counts, days=DAYS):
        for chat in StandaloneChat.objects.filter(pk__in=sizes):
            assert chat.messages.count() == sizes[chat.pk], "a conversation lost a part"
    assert max(transactions) <= 7
    assert (counts.conversations, counts.messages) == (6, 37)
    assert StandaloneChat.objects.count() == 1


def test_what_another_session_holds_is_left_and_nothing_waits_for_it(
    alice: User, other: Any
) -> None:
    held, with_held_message, _ = (chat_of(alice) for _ in range(3))
    other.execute("BEGIN")
    other.execute("SELECT FROM standalone_chats WHERE id = %s FOR KEY SHARE", [held.pk])
    message = with_held_message.messages.first()
    assert message
    other.execute("UPDATE standalone_chat_messages SET role = role WHERE id = %s", [message.pk])
    began = time.monotonic()
    assert run() == {"conversations": 1, "messages": 2}
    assert time.monotonic() - began < PATIENCE_S
    other.execute("ROLLBACK")
    assert {*StandaloneChat.objects.all()} == {held, with_held_message}
    assert run() == {"conversations": 2, "messages": 4}


def test_messages_stay_while_another_session_holds_their_memory(alice: User, other: Any) -> None:
    held, _ = (chat_of(alice) for _ in range(2))
    other.execute("BEGIN")
    other.execute("UPDATE message_memories SET bits = NULL WHERE conversation = %s", [held.pk * 2])
    assert run() == {"conversations": 1, "messages": 2}
    other.execute("ROLLBACK")
    assert StandaloneChat.objects.get() == held
    assert (held.messages.count(), MessageMemory.objects.count()) == (2, 2)
    assert run() == {"conversations": 1, "messages": 2}
    assert MessageMemory.objects.count() == 0


@pytest.mark.parametrize("hold", [HOLD_MEMORY, HOLD_MESSAGE])
def test_no_part_of_a_long_conversation_stays_when_a_row_was_held(
    hold: str, alice: User, other: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(expired, "MAX_MESSAGES", 7)
    long, _ = chat_of(alice, 20), chat_of(alice)
    (held,) = long.messages.order_by("pk")[15:16]
    other.execute("BEGIN")
    other.execute(hold, [held.pk])
    release = threading.Timer(1.0, other.execute, ["ROLLBACK"])
    release.start()
    assert run() == {"conversations": 2, "messages": 22}
    release.join()
    assert MessageMemory.objects.count() == 0


def test_what_stays_held_is_left_after_some_tries(
    alice: User, other: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(expired, "MAX_MESSAGES", 7)
    monkeypatch.setattr(expired, "MAX_TRIES", 3)
    long, _ = chat_of(alice, 20), chat_of(alice)
    (held,) = long.messages.order_by("pk")[15:16]
    other.execute("BEGIN")
    other.execute(HOLD_MEMORY, [held.pk])
    assert run() == {"conversations": 1, "messages": 16}
    assert f"conversation {long.pk} " in caplog.text
    other.execute("ROLLBACK")
    assert run() == {"conversations": 1, "messages": 6}


def test_a_conversation_that_is_touched_at_the_last_moment_stays(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look and the lock it gets a message, or is kept."""
    chats = [chat_of(alice) for _ in range(2)]
    look = expired._find

    def touch_after(*arguments: Any, **more: Any) -> list[int]:
        ids = look(*arguments, **more)
        if ids:
            StandaloneChat.objects.filter(pk=ids[0]).update(updated_at=timezone.now())
        return ids

    monkeypatch.setattr(expired, "_find", touch_after)
    assert run() == {"conversations": 1, "messages": 2}
    assert StandaloneChat.objects.get() == chats[0]


def test_servers_begin_after_the_command_and_one_sweeps_an_hour(alice: User) -> None:
    chat_of(alice)
    assert sweep.sweep().conversations == 0
    run("--dry-run")
    assert sweep.sweep().conversations == 1
    chat_of(alice)
    assert sweep.sweep().conversations == 0  # not within the same hour
    RetentionState.objects.update(swept_at=timezone.now() - timedelta(hours=1, seconds=1))
    assert sweep.sweep().conversations == 1
    lines = [(line.who.partition(":")[0], line.what) for line in audit.lines()]
    assert lines == [("verse", "expire_conversations: 1 conversations")] * 2


def test_a_sweep_that_takes_long_goes_on_at_the_next(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(3):
        chat_of(alice)
    sweep.begin()
    monkeypatch.setattr(sweep, "MAX_SWEEP_S", 0)
    monkeypatch.setattr(expired, "FIRST_BATCH", 1)
    assert [sweep.sweep().conversations for _ in range(3)] == [1, 1, 1]


def test_the_command_has_a_line_in_the_audit_log(alice: User) -> None:
    chat_of(alice)
    run("--dry-run")
    assert audit.lines() == []  # it has changed nothing
    run()
    (line,) = audit.lines()
    assert line.who.startswith("command:")
    assert line.what == "expire_conversations"


def test_the_doctor_warns_until_servers_look(alice: User, settings: Settings) -> None:
    def status() -> tuple[str, str]:
        finding = retention_runs()
        return finding.status, finding.fix

    assert status() == ("WARN", "python manage.py expire_conversations --dry-run")
    run("--dry-run")
    assert status()[0] == "PASS"
    RetentionState.objects.update(begun_at=timezone.now() - timedelta(hours=4))
    assert status() == ("WARN", f"RETENTION_DAYS={DAYS}")
    sweep.sweep()
    assert status()[0] == "PASS"
    settings.RETENTION_DAYS = None
    RetentionState.objects.all().delete()
    assert status()[0] == "PASS"


@pytest.mark.soak
def test_one_of_two_processes_sweeps(alice: User, server: Callable[..., Server]) -> None:
    chats = [chat_of(alice) for _ in range(30)]
    StandaloneChat.objects.filter(pk=chats[0].pk).update(updated_at=timezone.now())
    kept.set_kept(chats[1], True)
    run("--dry-run")
    running = server(WEB_CONCURRENCY="2", RETENTION_DAYS=str(DAYS))
    until = time.monotonic() + PATIENCE_S
    while StandaloneChat.objects.count() > 2:
        assert time.monotonic() < until, running.log
        time.sleep(0.1)
    assert {*StandaloneChat.objects.all()} == {*chats[:2]}
    while "Retention: " not in running.log:
        assert time.monotonic() < until, running.log
        time.sleep(0.1)
    assert running.log.count("INFO: Retention: deleted 28 conversations, 56 messages") == 1
