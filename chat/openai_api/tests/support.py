"""Requests to /v1 in this process, and what they have stored."""

import asyncio
import json
from typing import Any, NamedTuple

from django.contrib.auth.models import User
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChatMessage
from chat.tests.model_server_support import joined

Message = dict[str, Any]


def user(text: Any) -> Message:
    return {"role": "user", "content": text}


def assistant(text: str | None, **more: Any) -> Message:
    return {"role": "assistant", "content": text} | more


class Reply(NamedTuple):
    """A response. ``text`` is the answer's, ``chat`` the number of its chat or None."""

    status: int
    body: Any
    chat: int | None
    headers: Any

    @property
    def text(self) -> Any:
        return self.body["choices"][0]["message"]["content"]

    @property
    def code(self) -> str:
        return str(self.body["error"]["code"])


class Bearer:
    """A user's client of /v1."""

    def __init__(self, user: User) -> None:
        self.user = user
        self.api = APIClient(raise_request_exception=False)
        self.key = create_token(user)[1]
        self.api.credentials(HTTP_AUTHORIZATION=f"Bearer {self.key}")

    def ask(self, *messages: Any, headers: dict[str, str] | None = None, **more: Any) -> Reply:
        """POST the messages, not streamed."""
        body = {"model": "verse", "messages": list(messages)} | more
        return self.post(body, headers=headers)

    def post(self, body: Any, *, headers: dict[str, str] | None = None) -> Reply:
        response = self.api.post(
            "/v1/chat/completions",
            json.dumps(body),
            content_type="application/json",
            headers=headers or {},
        )
        chat = response.headers.get("X-Verse-Chat")
        return Reply(
            response.status_code,
            json.loads(response.content),
            int(chat) if chat else None,
            response.headers,
        )

    def events(self, *messages: Any, headers: dict[str, str] | None = None, **more: Any) -> Any:
        """The events of a stream, the last of them ``[DONE]`` unless it failed."""
        body = {"model": "verse", "messages": list(messages), "stream": True} | more
        response: Any = self.api.post(
            "/v1/chat/completions", body, format="json", headers=headers or {}
        )
        text = asyncio.run(joined(response.streaming_content)).decode()
        parts = text.split("\n\n")  # a comment comes every 15 s
        events = [part.removeprefix("data: ") for part in parts if part.startswith("data: ")]
        return [event if event == "[DONE]" else json.loads(event) for event in events]


def stored(chat: int | None = None) -> list[tuple[str, str]]:
    """Role and text of the messages, of one chat or of all, oldest first."""
    messages = StandaloneChatMessage.objects.in_order()
    if chat is not None:
        messages = messages.filter(conversation_id=chat)
    return list(messages.values_list("role", "content"))


def texts(chat: int | None = None) -> list[str]:
    return [text for _, text in stored(chat)]
