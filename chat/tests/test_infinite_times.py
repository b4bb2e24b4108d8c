"""Messages whose time is ``infinity`` or ``-infinity``, as other programs may have written them."""

import json

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from chat.models import StandaloneChat
from chat.tests.support import Api
from chat.tests.test_personal_data import of_table
from chat.tests.transfer_support import exported, imported, stored
from fake_openai import Answer, FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
TEXTS = ["The cat is called Mirabel", "The dog is called Biscuit", "The cat sleeps"]


@pytest.fixture
def chat(alice: User) -> StandaloneChat:
    """Three messages: of the earliest time, of today, of the latest time."""
    chat = StandaloneChat.objects.create(user=alice)
    with connection.cursor() as cursor:
        for text, at in zip(TEXTS, ("-infinity", "now", "infinity"), strict=True):
            cursor.execute(
                "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)"
                " VALUES (%s, %s, 'user', %s, %s)",
                [alice.pk, chat.pk, text, at],
            )
    return chat


def test_lists_give_messages_of_infinite_times_once_in_order(
    alice: User, api: Api, chat: StandaloneChat
) -> None:
    url: str | None = f"/api/chats/{chat.pk}/messages/?page_size=1"
    contents = []
    while url:
        page = api(alice).get(url).json()
        contents += [message["content"] for message in page["results"]]
        url = page["next"]
        assert len(contents) <= len(TEXTS)
    assert contents == TEXTS


def test_recall_and_prompt_work_with_messages_of_infinite_times(
    alice: User, api: Api, chat: StandaloneChat, remembering: FakeOpenAI
) -> None:
    call_command("backfill_embeddings", "--sleep", "0", verbosity=0)
    page = api(alice).get("/api/memory/search/", {"q": "cat", "limit": "50"}).json()
    assert {memory["content"] for memory in page["results"]} == set(TEXTS)
    remembering.chat.default = Answer("Mirabel.")
    other = StandaloneChat.objects.create(user=alice)
    for conversation in (other, chat):
        url = f"/api/chats/{conversation.pk}/messages/"
        answer = api(alice).post(url, {"content": "What is the cat called?"}, format="json")
        assert answer.status_code == 201, answer.content
        assert TEXTS[0] in json.dumps(remembering.chat.requests[-1].body)


def test_exports_hold_messages_of_infinite_times(
    alice: User, api: Api, chat: StandaloneChat
) -> None:
    export = of_table("standalone_chat_messages", api(alice))
    assert [message["content"] for message in export] == TEXTS
    lines = exported().splitlines(keepends=True)
    StandaloneChat.objects.all().delete()
    assert imported(*lines).messages == len(TEXTS)
    assert stored() == TEXTS
    assert imported(*lines).messages == 0
