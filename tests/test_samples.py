"""The demo's five questions, sent to a real server with the bundled embedding model."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings

from chat.auth.api_tokens import create_token
from chat.samples.loading import load, questions
from retrieval import runtime
from retrieval.backfill import backfill
from tests.support import PATIENCE_S, Server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
]
# The bundled language model needs seconds to read a prompt; its limits decide what it is given.
LANGUAGE_MODELS = [
    pytest.param({"LLM_CONTEXT_TOKENS": "2048", "LLM_MAX_TOKENS": "512"}, id="fake"),
    pytest.param(
        {"LLM": "local", "LLM_BASE_URL": "", "LLM_MAX_TOKENS": "8"},
        id="bundled",
        marks=pytest.mark.soak,
    ),
]


@pytest.mark.parametrize("language_model", LANGUAGE_MODELS)
def test_each_question_recalls_the_message_that_holds_its_answer(
    language_model: dict[str, str],
    alice: User,
    server: Callable[..., Server],
    settings: Settings,
) -> None:
    settings.EMBEDDINGS = "local"
    runtime.reset()
    assert load(alice) >= 150
    assert load(alice) == 0
    backfill(batch_size=32)
    # The answers are not tested, only what they are given.
    # On a busy machine the bundled model may take longer than usual.
    running = server(EMBEDDINGS="local", RAG_TIMEOUT=str(PATIENCE_S), **language_model)
    client = running.client(create_token(alice)[1])
    for question in questions():
        chat = client.post("/api/chats/", json={}).json()["id"]
        body = {"content": question.question}
        turn = client.post(f"/api/chats/{chat}/messages/", json=body, timeout=120)
        assert turn.status_code == 201, turn.text
        recalled = [memory["content"] for memory in turn.json()["context"]]
        assert question.expected in recalled, question.question
        assert client.delete(f"/api/chats/{chat}/").status_code == 204
    runtime.reset()
