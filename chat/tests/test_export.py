"""Which messages are exported, in what order, and that an import restores them."""

import io
import json
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import Passage, StandaloneChat
from chat.tests.transfer_support import (
    AT,
    NASTY,
    exported,
    imported,
    line,
)
from chat.transfer import exporting
from chat.transfer.exporting import export_lines

pytestmark = pytest.mark.django_db(transaction=True)


def test_an_export_imported_and_exported_again_is_the_same(
    alice: User,
) -> None:
    names = ["c", "Z", "chat 17", "chat 2 (2)", "ñ", "🐕", "\\.", '"', "a\nb", "a\tb"]
    lines = [
        line(user=user, kind=kind, conversation=name, content=content, role=role)
        for user, role in (("alice", "user"), ("Émile", "assistant"), ("Zoë", "user"))
        for kind in ("chat", "passage")
        for name, content in zip(names, NASTY, strict=False)
    ]
    imported(*lines, line(content="b"), line(content="a"), line(content="a"), create_users=True)
    for number in range(12):
        chat = StandaloneChat.objects.create(user=alice)
        chat.messages.create(user=alice, role="user", content=f"Chat without a name, {number}")
    first = exported()
    assert first.count(b"\n") == len(lines) + 3 + 12
    User.objects.all().delete()
    imported(*io.BytesIO(first), create_users=True)
    assert exported() == first


@pytest.mark.parametrize("content", NASTY)
def test_any_content_is_exported_as_it_was_imported(content: str, alice: User) -> None:
    imported(line(content=content, conversation=content[:50]))
    (raw,) = export_lines(None)
    assert json.loads(raw) == {
        "user": "alice",
        "conversation": content[:50],
        "kind": "chat",
        "role": "user",
        "content": content,
        "created_at": AT,
    }


def test_an_export_is_ordered_by_user_kind_conversation_time_and_id(alice: User, bob: User) -> None:
    wanted = [
        (user, kind, name, at)
        for user in ("Ann", "alice", "bob")
        for kind in ("chat", "passage")
        for name in ("B", "a", "b")
        for at in ("2024-05-03T10:00:00.000000Z", "2024-05-03T10:00:00.000001Z")
    ]
    lines = [
        line(user=user, kind=kind, conversation=name, created_at=at)
        for user, kind, name, at in wanted
    ]
    imported(*reversed(lines), create_users=True)
    got = [json.loads(raw) for raw in export_lines(None)]
    assert [
        (parsed["user"], parsed["kind"], parsed["conversation"], parsed["created_at"])
        for parsed in got
    ] == wanted


def test_earlier_messages_come_first_in_any_order_of_insertion(
    alice: User,
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    for day in (3, 1, 2):
        at = datetime(2024, 5, day, tzinfo=UTC)
        chat.messages.create(user=alice, role="user", content=f"{day}", created_at=at)
    with connection.cursor() as cursor:  # by an index they would be in order by chance
        cursor.execute("SET enable_indexscan = off; SET enable_bitmapscan = off")
        try:
            assert [json.loads(raw)["content"] for raw in export_lines(None)] == ["1", "2", "3"]
        finally:
            cursor.execute("RESET enable_indexscan; RESET enable_bitmapscan")


def test_a_users_export_holds_nothing_of_another_user(alice: User, bob: User) -> None:
    imported(
        line(content="alice's"), line(user="bob", content="bob's"), line(user="bob", kind="passage")
    )
    assert [json.loads(raw)["content"] for raw in export_lines(bob)] == ["bob's", "Hello"]
    assert exported(User.objects.create(username="carol")) == b""


def test_an_unnamed_conversation_gets_a_unique_name_from_its_id(alice: User, bob: User) -> None:
    chats = [StandaloneChat.objects.create(user=alice) for _ in range(3)]
    passage = Passage.objects.create(user=alice, reference="x", text="x")
    unnamed: list[Any] = [*chats, passage]
    for conversation in unnamed:
        conversation.messages.create(
            user=alice, role="user", content=f"{conversation.kind}{conversation.pk}"
        )
    taken = [f"chat {chats[0].pk}", f"chat {chats[0].pk} (2)", f"chat {chats[1].pk}"]
    imported(
        *(line(conversation=name) for name in taken),
        line(user="bob", conversation=f"chat {chats[2].pk}"),
    )
    names = {
        parsed["content"]: parsed["conversation"] for parsed in map(json.loads, export_lines(alice))
    }
    assert names.pop("Hello") in taken
    assert names == {
        f"chat{chats[0].pk}": f"chat {chats[0].pk} (3)",
        f"chat{chats[1].pk}": f"chat {chats[1].pk} (2)",
        f"chat{chats[2].pk}": f"chat {chats[2].pk}",
        f"passage{passage.pk}": f"passage {passage.pk}",
    }


def test_unfinished_answers_are_not_exported(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    for status in ("failed", "streaming", "interrupted"):
        chat.messages.create(user=alice, role="assistant", content="", status=status)
    chat.messages.create(user=alice, role="assistant", content="Half an", status="interrupted")
    answers = [json.loads(raw) for raw in export_lines(None)]
    assert [(answer["status"], answer["content"]) for answer in answers] == [
        ("failed", ""),
        ("interrupted", ""),
        ("interrupted", "Half an"),
    ]


def test_pages_have_no_gap_if_many_messages_have_equal_times(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 7)
    count = 2 * 7 + 1
    imported(*(line(content=f"{number}") for number in range(count)))
    assert [json.loads(raw)["content"] for raw in export_lines(alice)] == [
        str(number) for number in range(count)
    ]


def test_more_users_and_conversations_than_a_page_are_all_exported(
    alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporting, "PAGE", 7)
    names = [f"{number:02}" for number in range(2 * 7 + 1)]
    imported(*(line(user=f"user{name}", conversation=name) for name in names), create_users=True)
    imported(*(line(conversation=name) for name in names))
    assert [json.loads(raw)["conversation"] for raw in export_lines(None)] == names * 2


def test_times_are_exported_in_utc(alice: User) -> None:
    at = datetime(2024, 5, 3, 23, tzinfo=timezone(timedelta(hours=-3)))
    chat = StandaloneChat.objects.create(user=alice)
    chat.messages.create(user=alice, role="user", content="x", created_at=at)
    assert b'"created_at": "2024-05-04T02:00:00.000000Z"' in exported()
