"""Lines become messages of the right user and conversation, each once."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.memory import recall
from chat.models import ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.transfer_support import AT, NASTY, exported, imported, line, many, stored
from chat.transfer.exporting import export_lines
from chat.transfer.importing import Imported
from chat.transfer.json_lines import parse
from fake_openai import FakeOpenAI
from retrieval.recall.candidates import Scope

pytestmark = pytest.mark.django_db(transaction=True)


def test_a_line_becomes_a_message_in_a_chat_of_that_name(alice: User) -> None:
    assert imported(line(conversation="Holidays", role="assistant")) == Imported(1, 0, 1, 1, 0)
    message = StandaloneChatMessage.objects.get()
    assert (message.user, message.role, message.content) == (alice, "assistant", "Hello")
    assert (message.created_at, message.status) == (
        datetime(2024, 5, 3, 10, 0, 0, 123456, UTC),
        "complete",
    )
    chat = message.conversation
    assert (chat.user, chat.source, chat.title, chat.memory) == (
        alice,
        "Holidays",
        "Holidays",
        True,
    )


def test_imported_messages_are_found_by_words_at_once_without_embeddings(
    alice: User, remembering: FakeOpenAI
) -> None:
    imported(
        line(content="My dog is called Biscuit."), line(kind="passage", content="Tobit had a dog.")
    )
    assert not remembering.requests
    assert not StandaloneChatMessage.objects.filter(embedding__isnull=False).exists()
    result = recall.search("dog", Scope(alice.pk), limit=5)
    assert {memory.message.content for memory in result.memories} == {
        "My dog is called Biscuit.",
        "Tobit had a dog.",
    }


def test_a_line_of_kind_passage_becomes_a_message_about_a_passage(
    alice: User,
) -> None:
    imported(line(kind="passage", conversation="John 3:16-21"))
    passage = ChatMessage.objects.get().conversation
    assert (passage.source, passage.reference, passage.text) == ("John 3:16-21",) * 3
    assert not StandaloneChat.objects.exists()


def test_each_user_and_kind_has_conversations_of_its_own(alice: User, bob: User) -> None:
    done = imported(line(), line(user="bob"), line(kind="passage"), line(content="Again"))
    assert done == Imported(messages=4, users=2, conversations=3)
    assert StandaloneChat.objects.of(alice).get().messages.count() == 2
    assert (
        StandaloneChat.objects.of(bob).get().messages.count()
        == Passage.objects.of(alice).count()
        == 1
    )


@pytest.mark.parametrize("kind", ["chat", "passage"])
def test_a_long_name_is_cut_in_title_and_reference_only(kind: str, alice: User) -> None:
    name = "é" * 255
    imported(line(kind=kind, conversation=name))
    conversation: Any = (StandaloneChat if kind == "chat" else Passage).objects.get()
    assert (conversation.source, str(conversation)) == (name, "é" * 200)
    assert kind == "chat" or conversation.text == "é" * 200


def test_messages_are_added_by_time_then_in_file_order(alice: User) -> None:
    later = "2024-05-03T10:00:01Z"
    imported(
        line(content="c", created_at=later), line(content="b"), line(content="a"), line(content="0")
    )
    assert stored() == ["b", "a", "0", "c"]


def test_a_conversation_has_the_times_of_its_first_and_last_message(alice: User) -> None:
    times = [f"2024-05-0{day}T10:00:00+00:00" for day in (4, 2, 3)]
    imported(*(line(created_at=at) for at in times))
    chat = StandaloneChat.objects.get()
    assert (chat.created_at.isoformat(), chat.updated_at.isoformat()) == (times[1], times[0])
    imported(line(created_at="2024-05-01T10:00:00Z"), line(created_at="2024-05-09T10:00:00Z"))
    chat.refresh_from_db()
    assert (chat.created_at.day, chat.updated_at.day) == (1, 9)


def test_times_are_exact_to_the_microsecond_with_any_offset(alice: User) -> None:
    imported(line(created_at="2024-05-03T12:30:00.000001+02:30"))
    assert StandaloneChatMessage.objects.get().created_at == datetime(2024, 5, 3, 10, 0, 0, 1, UTC)


def test_empty_lines_unknown_fields_and_a_byte_order_mark_are_ignored(
    alice: User,
) -> None:
    done = imported(
        b"\xef\xbb\xbf" + line(score=[1], id=7), b"\n", b"  \r\n", line(content="Again")
    )
    assert (done.messages, done.skipped) == (2, 0)


def test_the_last_line_needs_no_newline(alice: User) -> None:
    assert imported(line(), line(content="last").rstrip(b"\n")).messages == 2


def test_a_number_as_conversation_is_its_name(alice: User) -> None:
    imported(line(conversation=17))
    assert StandaloneChat.objects.get().source == "17"


def test_created_users_have_no_usable_password(alice: User) -> None:
    names = [f"user{number}" for number in range(1_100)]
    done = imported(line(), *(line(user=name) for name in names), create_users=True)
    assert (done.messages, done.users) == (1_101, 1_101)
    alice.refresh_from_db()
    assert alice.has_usable_password()
    created = User.objects.exclude(pk=alice.pk)
    assert {user.username for user in created} == set(names)
    assert not any(
        user.has_usable_password() or not user.is_active or user.is_staff for user in created
    )
    assert len({user.password for user in created}) == len(names)


def test_three_equal_lines_are_three_messages(alice: User) -> None:
    assert imported(line(), line(content="x"), line(), line()).messages == 4
    assert stored() == ["Hello", "x", "Hello", "Hello"]


def test_lines_that_differ_in_one_field_are_different_messages(alice: User, bob: User) -> None:
    other = {
        "role": "assistant",
        "content": "hello",
        "created_at": AT.replace("6Z", "7Z"),
        "kind": "passage",
    }
    changed = [
        line(**{name: value})
        for name, value in (other | {"user": "bob", "conversation": "C"}).items()
    ]
    imported(line())
    for changed_line in changed:
        done = imported(changed_line, line())
        assert (done.messages, done.already) == (1, 1)
    assert sorted(map(parse, export_lines(None))) == sorted(map(parse, (line(), *changed)))
    assert imported(line(), *changed) == Imported(0, 0, 2, 4, already=7)


def test_a_second_import_adds_nothing(alice: User) -> None:
    lines = [
        line(),
        line(),
        *(line(content=content, kind="passage") for content in NASTY),
        *many(200),
    ]
    first = imported(*lines)
    before = exported()
    second = imported(*lines)
    assert (second.messages, second.already) == (0, first.messages)
    assert (second.users, second.conversations) == (first.users, first.conversations)
    assert exported() == before


def test_of_equal_lines_only_the_missing_ones_are_added(alice: User) -> None:
    imported(line(), line())
    done = imported(*[line()] * 5, line(content="new"))
    assert (done.messages, done.already) == (4, 2)
    assert imported(line()).messages == 0
    assert len(stored()) == 6


def test_ten_thousand_equal_lines_are_imported_twice_in_linear_time(alice: User) -> None:
    lines = [line()] * 10_000
    assert imported(*lines).messages == 10_000
    assert imported(*lines).already == 10_000


def test_messages_added_to_an_imported_chat_stay(alice: User) -> None:
    imported(line())
    StandaloneChat.objects.get().messages.create(user=alice, role="user", content="Mine")
    assert imported(line(), line(content="new")).messages == 1
    assert sorted(stored()) == ["Hello", "Mine", "new"]
