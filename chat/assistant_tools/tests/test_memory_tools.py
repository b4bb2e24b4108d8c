"""The tools without a protocol: wrong arguments, wrong ids, and what is kept."""

from datetime import timedelta
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from pytest_django import Settings

from chat.assistant_tools.memory_tools import MAX_CHARS, NOT_THERE, ToolError, call_tool
from chat.memory.embed import finish_embedding_jobs
from chat.models import (
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from fake_openai import FakeOpenAI
from verse.environment import Rate

pytestmark = pytest.mark.django_db(transaction=True)


def error_of(user: User, tool: str, **arguments: Any) -> str:
    with pytest.raises(ToolError) as refused:
        call_tool(user, tool, arguments)
    return str(refused.value)


@pytest.mark.parametrize(
    ("tool", "arguments", "error"),
    [
        ("search", {}, "query: This field may not be null."),
        ("search", {"query": " "}, "query: This field may not be blank."),
        ("search", {"query": "x", "limit": 51}, "limit: Ensure this value is less than or"),
        ("search", {"query": "x", "since": "soon"}, "since: Datetime has wrong format."),
        ("remember", {}, "text: This field may not be null."),
        ("remember", {"text": "x" * 32_001}, "text: Ensure this field has no more than 32000"),
        ("remember", {"text": ["x"]}, "text: Not a valid string."),
        ("remember", {"text": "x\x00"}, "text: "),
        ("remember", {"text": "x", "title": 7}, "title: Not a valid string."),
        ("remember", {"text": "x", "title": []}, "title: Not a valid string."),
        ("remember", {"text": "x", "title": "x\x00"}, "title: "),
    ],
)
def test_wrong_arguments_are_explained(
    tool: str, arguments: dict[str, Any], error: str, alice: User
) -> None:
    assert error_of(alice, tool, **arguments).startswith(error)
    assert not StandaloneChat.objects.exists()


@pytest.mark.parametrize("tool", ["fetch", "forget"])
def test_wrong_ids_and_others_messages_get_the_same_error(
    tool: str, alice: User, bob: User
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    hers = chat.messages.create(user=alice, role="user", content="Hers").pk
    ids: list[Any] = [f"chat-{hers}", f"passage-{hers}", f"{hers}", f"chat-{hers} ", f"CHAT-{hers}"]
    ids += ["chat-999999999", f"chat-{'9' * 30}", "chat--1", "chat-²", "", None, 7, ["chat-1"]]
    assert {error_of(bob, tool, id=each) for each in ids} == {NOT_THERE}
    assert error_of(bob, tool) == NOT_THERE
    assert StandaloneChatMessage.objects.filter(pk=hers).exists()


def test_what_is_excluded_from_memory_is_not_read(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice, memory=False)
    message = chat.messages.create(user=alice, role="user", content="Hidden")
    assert error_of(alice, "fetch", id=f"chat-{message.pk}") == NOT_THERE
    StandaloneChat.objects.update(memory=True)
    assert call_tool(alice, "fetch", {"id": f"chat-{message.pk}"})["text"] == "Hidden"
    MemorySwitch.objects.create(user=alice, enabled=False)
    assert error_of(alice, "fetch", id=f"chat-{message.pk}") == NOT_THERE


def test_a_message_comes_with_two_turns_before_and_after(alice: User) -> None:
    passage = Passage.objects.create(user=alice, reference="Tobit 6", text="A dog followed.")
    now = timezone.now()
    for number in range(12):
        role = "assistant" if number % 2 else "user"
        content = "x" * (MAX_CHARS + 1) if number in (5, 6) else f"{number}"
        passage.messages.create(user=alice, role=role, content=content, created_at=now)
    failed = {"user": alice, "role": "assistant", "content": "", "status": "failed"}
    passage.messages.create(**failed, created_at=now + timedelta(days=1))
    ids = list(passage.messages.order_by("id").values_list("id", flat=True))
    read = call_tool(alice, "fetch", {"id": f"passage-{ids[5]}"})
    assert (read["title"], read["role"], len(read["text"])) == ("Tobit 6", "assistant", 2_001)
    assert [item["text"] for item in read["before"]] == ["1", "2", "3", "4"]
    cut, *after = read["after"]
    assert cut["text"] == "x" * MAX_CHARS + " […]"
    assert [item["id"] for item in after] == [f"passage-{pk}" for pk in ids[7:10]]
    last = call_tool(alice, "fetch", {"id": f"passage-{ids[11]}"})
    assert last["after"] == []


def test_what_is_remembered_is_kept_once_and_embedded(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    fact = call_tool(alice, "remember", {"text": "Anna was born on 3 May."})
    finish_embedding_jobs()
    assert call_tool(alice, "remember", {"text": "Anna was born on 3 May."}) == fact
    assert call_tool(bob, "remember", {"text": "Anna was born on 3 May."})["id"] != fact["id"]
    chat = StandaloneChat.objects.of(alice).get()
    assert (chat.title, chat.messages.get().role, chat.messages.count()) == (
        "Remembered",
        "user",
        1,
    )
    assert chat.messages.filter(embedding__isnull=False).exists()
    StandaloneChat.objects.of(alice).update(title="Facts")
    other = call_tool(alice, "remember", {"text": "Anna likes tea.", "title": "Anna"})
    assert (other["title"], other["text"]) == ("Facts", "Anna\n\nAnna likes tea.")
    answer = call_tool(alice, "search", {"query": "When is Anna's birthday?", "limit": 1})
    assert answer["results"] == [fact | {"title": "Facts"}]


def test_remembering_counts_as_posting(alice: User, settings: Settings) -> None:
    settings.THROTTLE_MESSAGES = Rate(2, 60)
    for text in ("a", "b", "a"):
        call_tool(alice, "remember", {"text": text})
    assert error_of(alice, "remember", text="c").startswith("Too many messages")


def test_a_message_that_is_being_answered_is_not_forgotten(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    question = chat.messages.create(user=alice, role="user", content="Why?")
    answer = chat.messages.create(
        user=alice, role="assistant", status="streaming", reply_to=question.pk
    )
    RunningAnswer.objects.create(user=alice, chat=chat, message_id=answer.pk)
    assert "still running" in error_of(alice, "forget", id=f"chat-{question.pk}")
    assert error_of(alice, "forget", id=f"chat-{answer.pk}") == NOT_THERE
    assert chat.messages.count() == 2
