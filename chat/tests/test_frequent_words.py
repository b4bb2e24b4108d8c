"""A search by a word that most messages have, for a user with many messages."""

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from retrieval import runtime
from retrieval.recall.candidates import MAX_ROWS

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]


def test_searches_by_a_very_frequent_word_give_all_asked_for(
    alice: User, api: Api, settings: Settings
) -> None:
    settings.EMBEDDINGS = "none"
    runtime.reset()
    chat = StandaloneChat.objects.create(user=alice)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(user=alice, conversation=chat, role="user", content=f"Note {number}")
        for number in range(MAX_ROWS + 1)
    )
    for limit in (5, 31, 50):
        result = api(alice).get(f"/api/memory/search/?q=note&limit={limit}").json()
        assert result["mode"] == "lexical"
        assert len({memory["message_id"] for memory in result["results"]}) == limit
        assert all("Note" in memory["content"] for memory in result["results"])
    absent = api(alice).get("/api/memory/search/?q=zebra&limit=50").json()
    assert absent["results"] == []
