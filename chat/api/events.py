"""Server-sent events of an answer: from the process that gives it, or from any other by looking at its row."""

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any, cast

from asgiref.sync import sync_to_async
from django.http import StreamingHttpResponse
from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

from chat.answers import turns
from chat.answers.runner import SSE_KEEPALIVE_S, LiveAnswer
from chat.answers.turns import AnyConversation
from chat.api.serializers import MessageSerializer
from chat.db import with_connection
from chat.errors import ApiError
from chat.memory import recalled
from chat.models import Message, Status

MEDIA_TYPE = "text/event-stream"
POLL_S = 0.25  # how often the row of an answer that another process gives is looked at
KEEPALIVE = b": still here\n\n"  # a comment, for those who look whether the connection lives
DETAILS = {
    "llm_error": "The language model refused, or broke off its answer.",
    "llm_timeout": "The language model was silent for too long.",
    "llm_not_configured": "No language model is configured.",
    "interrupted": "The server stopped before the answer was whole; the same Idempotency-Key tries again.",
}


class EventNegotiation(DefaultContentNegotiation):
    """Accepts ``text/event-stream`` too; what is refused before the first event is JSON all the same."""

    media_type = MEDIA_TYPE

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        """DRF's renderer for JSON where the stream is asked for."""
        if self.media_type in request.headers.get("Accept", ""):
            return renderers[0], renderers[0].media_type
        return cast(
            "tuple[BaseRenderer, str]", super().select_renderer(request, renderers, format_suffix)
        )


def wants_events(request: Request) -> bool:
    """Whether the client asked for events."""
    return MEDIA_TYPE in request.headers.get("Accept", "")


def stream(events: AsyncIterator[bytes], **headers: str) -> StreamingHttpResponse:
    """The response; no proxy may hold it back or keep it."""
    return StreamingHttpResponse(
        events,
        content_type=MEDIA_TYPE,
        headers={"Cache-Control": "no-cache", "X-Accel-Buffering": "no"} | headers,
    )


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event, on the wire."""
    return f"event: {name}\ndata: {json.dumps(data, ensure_ascii=False)}\n\n".encode()


async def with_context_event(
    first: dict[str, Any], events: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """``context`` with what the answer is given, then the answer's events."""
    yield event("context", first)
    async for one in events:
        yield one


async def live_events(running: LiveAnswer) -> AsyncIterator[bytes]:
    """The events of an answer that this process gives: what is there, then the rest as it comes."""
    loop = asyncio.get_running_loop()
    texts: asyncio.Queue[str | None] = asyncio.Queue()

    def listener(text: str | None) -> None:
        with suppress(RuntimeError):  # the server's loop is closed: nobody is left to tell
            loop.call_soon_threadsafe(texts.put_nowait, text)

    running.listen(listener)
    try:
        while (text := await texts.get()) is not None:
            yield event("delta", {"text": text}) if text else KEEPALIVE
    finally:
        running.unlisten(listener)
    yield _ended(running)


async def stored_events(conversation: AnyConversation, message: Message) -> AsyncIterator[bytes]:
    """The events of an answer, finished or given by whatever process, as its rows tell them."""
    sent, silent_s = 0, 0.0
    while True:
        text, ended = await sync_to_async(with_connection)(_look, conversation, message.pk)
        if len(text) > sent:
            yield event("delta", {"text": text[sent:]})
            sent, silent_s = len(text), 0.0
        if ended is not None:
            yield ending(ended)
            return
        silent_s += POLL_S
        if silent_s >= SSE_KEEPALIVE_S:
            yield KEEPALIVE
            silent_s = 0.0
        await asyncio.sleep(POLL_S)


def _look(conversation: AnyConversation, message_id: int) -> tuple[str, Message | ApiError | None]:
    """The text so far; and the message where it has ended, an error where it is gone, None while it is given."""
    row = turns.running_answer_of(conversation)
    if row is not None and row.message_id == message_id:
        return row.text, None
    message: Message | None = conversation.messages.filter(pk=message_id).first()
    if message is None:
        return "", ApiError("The message was deleted.")
    recalled.attach_memories([message])
    return message.content, None if message.status == Status.STREAMING else message


def _ended(running: LiveAnswer) -> bytes:
    try:
        message = running.finished.result(timeout=0)
    except ApiError as error:
        return ending(error)
    return ending(message or ApiError("The message was deleted."))


def ending(ended: Message | ApiError) -> bytes:
    """``done`` with the answer, ``error`` where it ended so."""
    if isinstance(ended, ApiError):
        return event("error", {"code": ended.get_codes(), "detail": str(ended.detail)})
    if ended.error:
        return event(
            "error",
            {"code": ended.error, "detail": DETAILS.get(ended.error, "The answer is not whole.")},
        )
    truncated = {"truncated": True} if ended.truncated else {}
    return event("done", {"assistant_message": MessageSerializer(ended).data} | truncated)


async def finished_events(turn: turns.Turn) -> AsyncIterator[bytes]:
    """A finished answer as a stream."""
    if turn.answer.content:
        yield event("delta", {"text": turn.answer.content})
    yield ending(turn.answer)
