"""The first hour: five questions to the sample conversations, asked of a real server with the bundled models."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from chat.auth.api_tokens import create_token
from chat.samples.loading import load, questions
from retrieval import runtime
from retrieval.backfill import backfill
from tests.support import Server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
]


def test_each_of_the_five_questions_is_given_the_message_that_holds_the_answer(
    alice: User, server: Callable[..., Server], settings: Settings
) -> None:
    settings.EMBEDDINGS = "local"
    runtime.reset()
    assert load(alice) >= 150
    assert load(alice) == 0
    backfill(batch_size=32)
    one = server(
        EMBEDDINGS="local", LLM="local", LLM_BASE_URL="", LLM_MAX_TOKENS="8"
    )  # what it says is not tested
    client = one.client(create_token(alice)[1])
    for asked in questions():
        chat = client.post("/api/chats/", json={}).json()["id"]
        said = {"content": asked.question}
        turn = client.post(
            f"/api/chats/{chat}/messages/", json=said, timeout=120
        )  # a busy machine's model is slow
        assert turn.status_code == 201, turn.text
        assert asked.expected in [memory["content"] for memory in turn.json()["context"]], (
            asked.question
        )
        assert client.delete(f"/api/chats/{chat}/").status_code == 204
    runtime.reset()
