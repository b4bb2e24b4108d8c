"""The SDK's client of the memory tools, over HTTP and over stdio, and messages to find."""

import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx2
from django.contrib.auth.models import User
from django.db import connection
from mcp import Client, StdioServerParameters
from mcp.client.streamable_http import streamable_http_client

from chat.models import StandaloneChat
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, database_url

NOT_THERE = "There is no such message."
START = datetime(2024, 5, 3, 10, tzinfo=UTC)


@asynccontextmanager
async def connected(server: Server, key: str, *, mode: Any = "auto") -> AsyncIterator[Client]:
    """A client; each request opens a connection, so that both processes answer."""
    headers = {"Authorization": f"Bearer {key}", "Connection": "close"}
    async with (
        httpx2.AsyncClient(headers=headers, timeout=PATIENCE_S, trust_env=False) as http,
        Client(streamable_http_client(f"{server.url}/mcp", http_client=http), mode=mode) as client,
    ):
        yield client


def over_stdio(user: User) -> Client:
    """A client that starts the command."""
    environment = clean_environment(
        DATABASE_URL=database_url(connection), SECRET_KEY="test", EMBEDDINGS="none"
    )
    command = StdioServerParameters(
        command=sys.executable,
        args=["manage.py", "mcp", "--user", user.username],
        env=environment,
        cwd=ROOT,
    )
    return Client(command, read_timeout_seconds=PATIENCE_S)


async def result_of(client: Client, tool: str, **arguments: Any) -> dict[str, Any]:
    answer = await client.call_tool(tool, arguments)
    assert not answer.is_error, answer.content
    structured: dict[str, Any] = answer.structured_content
    return structured


async def error_of(client: Client, tool: str, **arguments: Any) -> str:
    answer = await client.call_tool(tool, arguments)
    assert answer.is_error
    (content,) = answer.content
    return str(content.text)  # type: ignore[union-attr] # a text


def talk(user: User, *texts: str, title: str = "Trip") -> list[int]:
    """The ids of the messages of a new chat, a minute apart."""
    chat = StandaloneChat.objects.create(user=user, title=title)
    return [
        chat.messages.create(
            user=user,
            role="assistant" if number % 2 else "user",
            content=text,
            created_at=START + timedelta(minutes=number),
        ).pk
        for number, text in enumerate(texts)
    ]
