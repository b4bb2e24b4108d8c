"""An export is a copy: in an empty database it gives the same export, in its own adds nothing."""

import io
import json
from datetime import UTC, datetime, timedelta
from random import Random
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.models import KINDS, Conversation, Message, Passage, StandaloneChat
from chat.tests.transfer_support import NASTY, exported, imported, line

pytestmark = pytest.mark.django_db(transaction=True)
TIMES = [datetime(2024, 5, 3, tzinfo=UTC) + timedelta(seconds=second / 2) for second in range(9)]
TITLES = ["", " ", "Trip", "chat 1", "x" * 200, "ñ\t🐕 \\N", "a\nb"]
NAMES = [None, None, "Trip", "chat 1", "chat 1 (2)", "passage 1", "y" * 255, "犬"]
ENDINGS = ["complete", "complete", "complete", "interrupted", "failed", "streaming"]


def add_conversation(user: User, random: Random) -> Conversation:
    """Of either kind; made by the API, or imported under a name that the user has not used."""
    values: dict[str, Any] = {"user": user, "memory": random.random() < 0.7}
    model: Any = random.choice((StandaloneChat, Passage))
    source = random.choice(NAMES)
    if source and not model.objects.filter(user=user, source=source).exists():
        values["source"] = source
    if random.random() < 0.5:
        values["created_at"] = random.choice(TIMES)
    if model is StandaloneChat:
        values["title"] = random.choice(TITLES)
    else:
        values["reference"] = random.choice(TITLES)
        values["text"] = random.choice([*TITLES, "y" * 40_000])
    conversation: Conversation = model.objects.create(**values)
    return conversation


def add_messages(conversation: Conversation, random: Random) -> None:
    """Up to six, of few times, so that some are equal; an answer ends in any way."""
    for _ in range(random.randrange(7)):
        role = random.choice(("user", "assistant"))
        message = {
            "user_id": conversation.user_id,
            "role": role,
            "created_at": random.choice(TIMES),
        }
        content = random.choice([*NASTY[:8], "Hello", "Hello"])
        if role == "assistant":
            message["status"] = random.choice(ENDINGS)
            content = random.choice(["Hello", " ", "z" * 45_000])
            if message["status"] == "failed":
                content = ""
        conversation.messages.create(content=content, **message)


def state() -> list[tuple[Any, ...]]:
    """All conversations and messages, without what an import gives them newly."""
    rows: list[tuple[Any, ...]] = []
    for model in KINDS.values():
        fields = ("conversation__memory", "role", "content", "status", "created_at")
        rows += model.objects.order_by("user__username", *fields).values_list(*fields)
    return rows


def check(seed: int) -> None:
    """One generated state of two users."""
    random = Random(seed)
    for name in ("alice", "José"):
        user = User.objects.create(username=name)
        for _ in range(random.randrange(6)):
            add_messages(add_conversation(user, random), random)
    first = exported()
    counts = [model.objects.count() for model in (User, StandaloneChat, Passage)]
    again = imported(*io.BytesIO(first))
    assert (again.messages, exported()) == (0, first), seed
    assert counts == [model.objects.count() for model in (User, StandaloneChat, Passage)], seed
    for model in KINDS.values():
        model.objects.filter(status="streaming").delete()
    before = state()
    User.objects.all().delete()
    imported(*io.BytesIO(first), create_users=True)
    assert exported() == first, seed
    assert state() == before, seed
    User.objects.all().delete()


@pytest.mark.parametrize("seed", range(8))
def test_an_export_is_a_copy(seed: int) -> None:
    check(seed)


@pytest.mark.soak
def test_exports_of_many_states_are_copies() -> None:
    for seed in range(100, 300):
        check(seed)


def test_titles_texts_switches_and_statuses_come_back(alice: User) -> None:
    passage = Passage.objects.create(
        user=alice, reference="John 11:35", text="Jesus wept.", memory=False
    )
    chat = StandaloneChat.objects.create(user=alice, title="A long answer")
    for conversation in (passage, chat):
        conversation.messages.create(user=alice, role="user", content="Why?")
        conversation.messages.create(
            user=alice, role="assistant", content="z" * 45_000, status="interrupted"
        )
    lines = exported().splitlines(keepends=True)
    created_at = passage.created_at
    Passage.objects.all().delete()
    StandaloneChat.objects.all().delete()
    imported(*lines)
    passage = Passage.objects.get()
    assert (passage.reference, passage.text) == ("John 11:35", "Jesus wept.")
    assert (passage.memory, passage.created_at) == (False, created_at)
    assert StandaloneChat.objects.get().title == "A long answer"
    answers: list[Message] = [*passage.messages.filter(role="assistant")]
    assert [(len(answer.content), answer.status) for answer in answers] == [(45_000, "interrupted")]


def test_another_database_with_the_same_ids_gets_chats_of_its_own(alice: User) -> None:
    chat = StandaloneChat.objects.create(user=alice, title="Mine")
    chat.messages.create(user=alice, role="user", content="Hello")
    (raw,) = exported().splitlines(keepends=True)
    other = json.loads(raw) | {"conversation_created_at": "2024-05-03T10:00:00Z"}
    assert imported(json.dumps(other).encode() + b"\n").messages == 1
    assert StandaloneChat.objects.count() == 2
    chat.refresh_from_db()
    assert (chat.title, chat.source) == ("Mine", None)


def test_a_later_import_changes_no_title(alice: User) -> None:
    imported(line(title="Before"))
    imported(line(title="After", content="More", memory=False))
    chat = StandaloneChat.objects.get()
    assert (chat.title, chat.memory, chat.messages.count()) == ("Before", True, 2)


@pytest.mark.parametrize("stored", ["José", "Jose\u0301"])
def test_a_name_in_another_unicode_form_is_the_same_user(stored: str) -> None:
    user = User.objects.create(username=stored)
    done = imported(line(user="Jose\u0301"), line(user="José", content="More"), create_users=True)
    assert (done.messages, done.users, User.objects.count()) == (2, 1, 1)
    assert {chat.user for chat in StandaloneChat.objects.all()} == {user}


def test_created_users_have_names_in_djangos_form() -> None:
    imported(line(user="Jose\u0301"), line(user="Ｆｏｏ"), create_users=True)
    assert set(User.objects.values_list("username", flat=True)) == {"José", "Foo"}
