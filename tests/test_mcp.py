"""MCP by the SDK's own client: over HTTP with two server processes, and over stdio."""

import asyncio
import subprocess
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from mcp import Client, MCPError
from pytest_django import DjangoDbBlocker

from chat.auth.api_tokens import create_token, find_token, revoke_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from tests.mcp_support import NOT_THERE, connected, error_of, over_stdio, result_of, talk
from tests.support import ROOT, Server, clean_environment, database_url, serve_test_database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


@pytest.fixture(scope="module")
def two(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Two processes in words mode, for all tests: they keep nothing."""
    settings = {"WEB_CONCURRENCY": "2", "EMBEDDINGS": "none", "THROTTLE_MESSAGES": "off"}
    yield from serve_test_database(django_db_blocker, openai_server, **settings)


async def tell_and_ask(client: Client, ids: list[int]) -> None:
    """What an assistant does: finds, reads, remembers, forgets."""
    answer = await result_of(client, "search", query="Which ferry do we take?", limit=2)
    (ferry,) = [item for item in answer["results"] if "Hurtigruten" in item["text"]]
    assert ferry == {
        "id": f"chat-{ids[2]}",
        "title": "Trip",
        "text": "We take the ferry Hurtigruten.",
        "role": "user",
        "created_at": "2024-05-03T10:02:00Z",
    }
    read = await result_of(client, "fetch", id=ferry["id"])
    assert {name: read[name] for name in ferry} == ferry
    assert [item["text"] for item in read["before"]] == ["Hello", "Hi!"]
    assert [item["text"] for item in read["after"]] == ["Good."]
    note = await result_of(client, "remember", text="The ferry leaves at 21:30.", title="Ferry")
    again = await result_of(client, "remember", text="The ferry leaves at 21:30.", title="Ferry")
    assert note == again
    assert (note["title"], note["text"]) == (
        "Remembered",
        "Ferry\n\nThe ferry leaves at 21:30.",
    )
    answer = await result_of(
        client, "search", query="When does the ferry leave?", since="2024-06-01"
    )
    assert [item["id"] for item in answer["results"]] == [note["id"]]
    assert await result_of(client, "forget", id=ferry["id"]) == {"forgotten": ferry["id"]}
    assert await error_of(client, "fetch", id=ferry["id"]) == NOT_THERE
    answer = await result_of(client, "search", query="Which ferry do we take?", limit=50)
    assert ferry["id"] not in {item["id"] for item in answer["results"]}


@pytest.mark.parametrize("mode", ["auto", "legacy"])
def test_an_assistant_finds_reads_remembers_and_forgets(
    mode: str, alice: User, two: Server
) -> None:
    """By the current protocol and by the earlier handshake."""
    ids = talk(alice, "Hello", "Hi!", "We take the ferry Hurtigruten.", "Good.")
    key = create_token(alice)[1]

    async def story() -> None:
        async with connected(two, key, mode=mode) as client:
            await tell_and_ask(client, ids)

    asyncio.run(story())
    assert StandaloneChat.objects.get(source="Remembered").messages.count() == 1
    token = find_token(key)
    assert token
    assert token.last_used_at
    assert "ERROR" not in two.log


def test_the_same_over_standard_input_and_output(alice: User) -> None:
    ids = talk(alice, "Hello", "Hi!", "We take the ferry Hurtigruten.", "Good.")

    async def story() -> None:
        async with over_stdio(alice) as client:
            await tell_and_ask(client, ids)

    asyncio.run(story())


def test_tools_say_what_they_change_and_what_they_need(alice: User, two: Server) -> None:
    key = create_token(alice)[1]

    async def tools() -> dict[str, Any]:
        async with connected(two, key) as client:
            assert "Search it before you answer" in (client.instructions or "")
            with pytest.raises(MCPError, match="no such tool"):
                await client.call_tool("erase", {})
            return {tool.name: tool for tool in (await client.list_tools()).tools}

    listed = asyncio.run(tools())
    hints = {
        name: (
            tool.annotations.read_only_hint,
            tool.annotations.destructive_hint,
            tool.annotations.idempotent_hint,
        )
        for name, tool in listed.items()
    }
    assert hints == {
        "search": (True, None, None),
        "fetch": (True, None, None),
        "remember": (False, False, True),
        "forget": (False, True, True),
    }
    assert {name: tool.input_schema["required"] for name, tool in listed.items()} == {
        "search": ["query"],
        "fetch": ["id"],
        "remember": ["text"],
        "forget": ["id"],
    }


def test_another_users_id_and_a_missing_one_get_the_same_error(
    alice: User, bob: User, two: Server
) -> None:
    (hers,) = talk(alice, "Hers")
    key = create_token(bob)[1]

    async def ask() -> set[str]:
        async with connected(two, key) as client:
            tools, ids = ("fetch", "forget"), (f"chat-{hers}", "chat-999999999", "mine", 7)
            return {await error_of(client, tool, id=each) for tool in tools for each in ids}

    assert asyncio.run(ask()) == {NOT_THERE}
    assert StandaloneChatMessage.objects.filter(pk=hers).exists()


INITIALIZE = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-06-18",
        "capabilities": {},
        "clientInfo": {"name": "test", "version": "1"},
    },
}


def test_only_a_valid_bearer_token_at_an_allowed_host_is_served(
    alice: User, bob: User, two: Server
) -> None:
    token, key = create_token(alice)
    accept = {"Accept": "application/json, text/event-stream"}
    client = two.client(**accept)

    def post(**headers: str) -> Any:
        return client.post("/mcp", json=INITIALIZE, headers=headers)

    good = post(Authorization=f"Bearer {key}")
    assert good.status_code == 200, good.text
    assert good.json()["result"]["serverInfo"]["name"] == "verse"
    assert "mcp-session-id" not in good.headers
    refused = [post(), post(Authorization=f"Token {key}"), post(Authorization=f"Bearer {key}x")]
    revoke_token(token, by=alice)
    refused.append(post(Authorization=f"Bearer {key}"))
    assert {answer.status_code for answer in refused} == {401}
    assert {answer.headers["www-authenticate"] for answer in refused} == {"Bearer"}
    missing = two.client(Authorization="Bearer x").get("/api/chats/")
    assert {answer.content for answer in refused} == {missing.content}
    bobs = {"Authorization": f"Bearer {create_token(bob)[1]}"}
    wrong_host = post(Host="evil.example", **bobs)
    assert (wrong_host.status_code, wrong_host.json()["code"]) == (400, "invalid")
    assert client.get("/mcp", headers=bobs).status_code == 405
    assert client.delete("/mcp/", headers=bobs).status_code == 405
    large = client.post("/mcp", content=b"x" * 1_000_001, headers=bobs)
    assert (large.status_code, large.json()["code"]) == (413, "too_large")
    for body in (b"", b"{", b"[]", b'{"jsonrpc": "2.0"}'):
        answer = client.post(
            "/mcp", content=body, headers=bobs | {"Content-Type": "application/json"}
        )
        assert answer.status_code == 400, answer.text


def test_the_command_needs_a_user_that_exists(db: None) -> None:
    with pytest.raises(CommandError, match="No user is called 'carol'"):
        call_command("mcp", "--user", "carol")


def test_the_sdk_is_imported_by_the_first_request_only() -> None:
    code = "import sys, verse.asgi, verse.urls; print('mcp' in sys.modules)"
    environment = clean_environment(SECRET_KEY="test", DATABASE_URL=database_url(connection))
    output = subprocess.check_output(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, text=True
    )
    assert output == "False\n"
