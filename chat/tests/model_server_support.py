"""What tests of model servers share: turns, their events, and the prompts that were sent."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

from rest_framework.test import APIClient

from chat.models import Passage, StandaloneChat
from fake_openai import (
    FakeOpenAI,
)


def post(
    client: APIClient, chat: StandaloneChat | Passage, content: str = "Hello", **more: Any
) -> Any:
    return client.post(
        f"/api/{chat.kind}s/{chat.pk}/messages/", {"content": content}, format="json", **more
    )


def stream(
    client: APIClient, chat: StandaloneChat, content: str = "Hello"
) -> list[tuple[str, Any]]:
    """The events of a turn: name and data."""
    response = post(client, chat, content, HTTP_ACCEPT="text/event-stream")
    body = asyncio.run(joined(response.streaming_content)).decode()
    events = [event.split("\n") for event in body.split("\n\n") if event.startswith("event: ")]
    return [(name.removeprefix("event: "), json.loads(data[6:])) for name, data in events]


async def joined(chunks: AsyncIterator[bytes]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


def prompts(fake: FakeOpenAI) -> list[list[dict[str, Any]]]:
    return [request.messages for request in fake.chat.requests]


def contents(prompt: list[dict[str, Any]]) -> list[str]:
    return [part["content"] for part in prompt]


def begins_as_before(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> bool:
    """Whether a prompt begins with the one before, their last messages apart."""
    return after[: len(before) - 1] == before[:-1]


def talk(
    client: APIClient, chat: StandaloneChat, fake: FakeOpenAI, turns: int
) -> list[list[dict[str, Any]]]:
    """The prompts of so many turns of a few words."""
    for number in range(turns):
        question = f"Question {number}: what is {number} times {number + 1}?"
        assert post(client, chat, question).status_code == 201
    return prompts(fake)
