"""A server recalls on each schema with memory, also while recall's functions come and go."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

from fake_openai import FakeOpenAI
from tests.databases import Database
from tests.rehearsal import manage
from tests.support import Server

FACT = "My cat Muffin sleeps all day."
QUESTION = "Which cat sleeps?"
SOAK = ("0005_memory", "0009_message_terms")
SCHEMAS = ["0006_usage", *(pytest.param(name, marks=pytest.mark.soak) for name in SOAK)]
FUNCTIONS = "SELECT count(*) FROM pg_proc WHERE proname LIKE 'recall_messages_%'"


@contextmanager
def serving(database: Database) -> Iterator[tuple[Server, Any]]:
    """A server with alice's fact in its memory, embedded, and her client."""
    database.add_message(FACT)
    token = database.command("create_token", "alice").stdout.strip().splitlines()[-1]
    with FakeOpenAI() as fake:
        urls = {"LLM_BASE_URL": fake.base_url, "OPENAI_BASE_URL": fake.base_url}
        settings = {"OPENAI_API_KEY": "sk-test"} | urls
        manage(database.url, "backfill_embeddings", **settings)
        server = Server({"DATABASE_URL": database.url} | settings)
        try:
            yield server, server.client(token)
        finally:
            server.end()


def recalled(client: Any) -> tuple[str, bool]:
    """The mode of a search, and whether it finds the fact."""
    response = client.get("/api/memory/search/", params={"q": QUESTION})
    assert response.status_code == 200, response.text
    return response.json()["mode"], FACT in str(response.json()["results"])


@pytest.mark.parametrize("schema", SCHEMAS)
def test_a_server_recalls_on_an_older_schema(schema: str, database: Database) -> None:
    database.start_at(schema)
    with serving(database) as (server, client):
        assert recalled(client) == ("hybrid", True)
        chat = client.post("/api/chats/", json={}).json()["id"]
        turn = client.post(f"/api/chats/{chat}/messages/", json={"content": QUESTION})
        assert FACT in str(turn.json()["context"])
        assert "ERROR" not in server.log


@pytest.mark.soak
def test_recall_and_writes_go_on_while_the_functions_are_dropped_and_made(
    database: Database,
) -> None:
    database.start_at("0010_recall_messages")
    outcomes, ended = list[tuple[str, bool]](), threading.Event()
    with serving(database) as (server, client):

        def ask() -> None:
            while not ended.is_set():
                outcomes.append(recalled(client))
                database.add_message(f"Nothing else, number {len(outcomes)}.")

        thread = threading.Thread(target=ask)
        thread.start()
        try:
            for target in ("0007_log_counts", "0010_recall_messages"):
                manage(database.url, "migrate", "chat", target)
        finally:
            ended.set()
            thread.join()
        assert database.run(FUNCTIONS) == [(2,)]
        assert recalled(client) == ("hybrid", True)
        assert "ERROR" not in server.log
    assert len(outcomes) > 10
    # When the functions disappear one recall is answered without memories.
    assert [outcome for outcome in outcomes if outcome != ("hybrid", True)] in (
        [],
        [("off", False)],
    )
