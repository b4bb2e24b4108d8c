"""Turns, recall and stops behind a pooler that keeps no state of a session."""

from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import quote

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.auth.api_tokens import create_token
from fake_openai import Answer, FakeOpenAI
from tests.discarding_pooler import DiscardingPooler, discarding_pooler
from tests.support import Server, database_url
from tests.test_hanging_embeddings import wait_until_embedded

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FACT = "The spare key is in the blue teapot."
QUESTION = "Where is the spare key?"


@pytest.fixture
def pooler() -> Iterator[DiscardingPooler]:
    params: Any = connection.get_connection_params()
    with discarding_pooler(f"{params['host']}/.s.PGSQL.{params['port']}") as pooler:
        yield pooler


def test_turns_and_recall_need_no_state_of_a_session(
    alice: User,
    server: Callable[..., Server],
    openai_server: FakeOpenAI,
    pooler: DiscardingPooler,
) -> None:
    openai_server.chat.default = Answer("I see.")
    name, user = quote(connection.settings_dict["NAME"]), connection.get_connection_params()["user"]
    running = server(
        DATABASE_URL=f"postgresql://{user}@127.0.0.1:{pooler.port}/{name}",
        DATABASE_DIRECT_URL=database_url(connection),
        OPENAI_BASE_URL=openai_server.base_url,
        OPENAI_API_KEY="sk-test",
    )
    client = running.client(create_token(alice)[1])

    def say(content: str) -> Any:
        chat = client.post("/api/chats/", json={}).json()["id"]
        answer = client.post(f"/api/chats/{chat}/messages/", json={"content": content})
        return answer.raise_for_status().json()

    say(FACT)
    wait_until_embedded({FACT, "I see."})
    turns = [say(f"{QUESTION} {number}") for number in range(3)]
    assert [turn["assistant_message"]["status"] for turn in turns] == ["complete"] * 3
    recalled = [{memory["content"] for memory in turn["context"]} for turn in turns]
    assert all(FACT in memories for memories in recalled), recalled
    result = client.get("/api/memory/search/", params={"q": QUESTION}).json()
    assert result["mode"] == "hybrid"
    assert FACT in [memory["content"] for memory in result["results"]]
    assert pooler.discards > 10 * len(turns)
