"""10,000 requests by 50 users, with ids of all users' objects: no word of another is shown."""

import random
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from chat.models import ChatMessage, Message, Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.soak]
USERS, OPERATIONS, MESSAGES = 50, 10_000, 6
CANARY = re.compile(r"canary(\d+)x")
READS = ("", "messages/", "messages/{message}/", "messages/{message}/events/")
WRITES = (
    ("patch", "", {"title": "Mine"}),
    ("delete", "", None),
    ("post", "messages/", {"content": "Mine"}),
    ("patch", "messages/{message}/", {"content": "Mine"}),
    ("delete", "messages/{message}/", None),
    ("post", "messages/{message}/stop/", None),
    ("post", "messages/{message}/regenerate/", None),
)
QUESTIONS = (
    "Which dog likes the bread?",
    "canary",
    "canary{other}x",
    "the bread of canary{other}x",
)


@dataclass
class Person:
    """A user with a chat and a passage, in which each text holds the user's canary."""

    user: User
    client: APIClient
    addresses: dict[str, list[int]]  # of the conversations, with the ids of their messages


def person_of(number: int, api: Api) -> Person:
    user = User.objects.create(username=f"user {number}")
    canary = f"canary{user.pk}x"
    chat = StandaloneChat.objects.create(user=user, title=canary)
    passage = Passage.objects.create(user=user, reference=canary, text=f"The bread of {canary}")
    return Person(
        user,
        api(user),
        {
            f"/api/chats/{chat.pk}/": fill(StandaloneChatMessage, chat, canary),
            f"/api/passages/{passage.pk}/": fill(ChatMessage, passage, canary),
        },
    )


def fill(table: type[Message], of: StandaloneChat | Passage, canary: str) -> list[int]:
    texts = (f"The dog {canary} likes the bread, {number}." for number in range(MESSAGES))
    return [
        table._default_manager.create(
            user=of.user, conversation=of, role=("user", "assistant")[number % 2], content=text
        ).pk
        for number, text in enumerate(texts)
    ]


def all_rows() -> list[object]:
    return [
        list(table._default_manager.order_by("pk").values_list("pk", "user_id", "content"))
        for table in (StandaloneChatMessage, ChatMessage)
    ]


def ask(person: Person, other: Person, chance: random.Random) -> str:
    """A search, or a request for an object of ``other``; the answer's text."""
    if chance.random() < 0.2:
        question = chance.choice(QUESTIONS).format(other=other.user.pk)
        answer = person.client.get("/api/memory/search/", {"q": question, "limit": "50"})
        assert answer.status_code == 200
        return str(answer.content.decode())
    address, ids = chance.choice(list(other.addresses.items()))
    method, path, body = chance.choice([("get", path, None) for path in READS] + [*WRITES])
    is_own = person is other
    if is_own:
        method, path, body = "get", chance.choice(READS[:3]), None
    path = path.format(message=chance.choice(ids))
    answer = getattr(person.client, method)(address + path, body, format="json")
    assert answer.status_code == (200 if is_own else 404), (method, address, path)
    return str(answer.content.decode())


@pytest.mark.parametrize("seed", [1])
def test_no_request_with_any_id_shows_or_changes_what_is_anothers(
    seed: int,
    api: Api,
    remembering: FakeOpenAI,
    unlimited: None,
    record_property: Callable[[str, object], None],
) -> None:
    people = [person_of(number, api) for number in range(USERS)]
    before, chance, shown = all_rows(), random.Random(seed), 0
    for _ in range(OPERATIONS):
        person, other = chance.choice(people), chance.choice(people)
        canaries = set(CANARY.findall(ask(person, other, chance)))
        assert canaries <= {str(person.user.pk)}
        shown += bool(canaries)
    assert all_rows() == before
    assert shown > OPERATIONS // 20
    figure = f"{OPERATIONS:,} requests of {USERS} users, 0 words of others"
    record_property("figure", figure)
