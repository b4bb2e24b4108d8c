"""Server-sent events of an answer: from this process while it generates it, else from its rows."""

import asyncio
import math
import threading
import time
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, suppress
from typing import Any

from chat.answers.followers import MARK_EVERY_S
from chat.answers.live_answer import SSE_KEEPALIVE_S, LiveAnswer, Reasoning
from chat.api.event_json import encode
from chat.api.serializers import MessageSerializer
from chat.errors import MODEL_DETAILS, ApiError, MessageDeleted
from chat.models import Message
from chat.services import ChatService
from retrieval import steps

# How often the row of another process's answer is read; its process writes it as often as
# heartbeat.FOLLOWED_TICK_S.
POLL_S = 0.1
KEEPALIVE = b": still here\n\n"  # a comment: clients ignore it, proxies see traffic


def event(name: str, data: dict[str, Any]) -> bytes:
    """One event in wire format."""
    return f"event: {name}\ndata: {encode(data)}\n\n".encode()


async def with_context_event(
    context: dict[str, Any], events: AsyncIterator[bytes]
) -> AsyncIterator[bytes]:
    """``context``, then the answer's events."""
    yield event("context", context)
    async for chunk in events:
        yield chunk


async def take_all(texts: "asyncio.Queue[str | None]") -> list[str | None]:
    """The next text, and all that wait behind it: a busy server sends them as one piece."""
    waiting = [await texts.get()]
    while not texts.empty():
        waiting.append(texts.get_nowait())
    return waiting


def text_event(text: str) -> bytes:
    """The event of a piece of the answer; a comment for an empty one."""
    name = "reasoning" if isinstance(text, Reasoning) else "delta"
    return event(name, {"text": text}) if text else KEEPALIVE


async def live_events(live: LiveAnswer, *, from_start: bool = False) -> AsyncIterator[bytes]:
    """The text so far as one ``delta``, the rest as it is generated, then the end.

    ``from_start``: with all of the model's reasoning, else with what comes from now on.
    """
    async with aclosing(live_pieces(live, from_start=from_start)) as all_pieces:
        async for pieces in all_pieces:
            yield b"".join(map(text_event, pieces))
    try:
        message = live.saved.result(timeout=0)
        detail = live.ending.detail if live.ending else ""
        yield final_event(message, detail) if message else error_event(MessageDeleted())
    except ApiError as error:
        yield error_event(error)


async def live_pieces(live: LiveAnswer, *, from_start: bool) -> AsyncGenerator[list[str]]:
    """The pieces of the answer as they come, until it is saved. An empty one is a keep-alive."""
    loop, loop_thread = asyncio.get_running_loop(), threading.get_ident()
    texts: asyncio.Queue[str | None] = asyncio.Queue()

    def listener(text: str | None) -> None:
        if threading.get_ident() == loop_thread:
            texts.put_nowait(text)  # without the system call that wakes a loop
        else:
            with suppress(RuntimeError):  # the server's loop is closed
                loop.call_soon_threadsafe(texts.put_nowait, text)

    live.listen(listener, from_start=from_start)
    try:
        while (waiting := await take_all(texts)) != [None]:
            yield [text for text in waiting if text is not None]
            if waiting[-1] is None:
                break
    finally:
        live.unlisten(listener)


async def stored_events(service: ChatService, message_id: int) -> AsyncIterator[bytes]:
    """The same events by polling the answer's rows; works for every process and every state."""
    sent, silent_s, marked_at = 0, 0.0, -math.inf
    while True:
        now = time.monotonic()
        if mark := now - marked_at >= MARK_EVERY_S:
            marked_at = now
        try:
            text, ended = await steps.run(service.current_text, message_id, mark_followed=mark)
        except MessageDeleted as error:
            yield error_event(error)
            return
        if len(text) > sent:
            yield event("delta", {"text": text[sent:]})
            sent, silent_s = len(text), 0.0
        if ended is not None:
            yield final_event(ended)
            return
        silent_s += POLL_S
        if silent_s >= SSE_KEEPALIVE_S:
            yield KEEPALIVE
            silent_s = 0.0
        await asyncio.sleep(POLL_S)


async def finished_events(answer: Message) -> AsyncIterator[bytes]:
    """The events of an answer that has ended."""
    if answer.content:
        yield event("delta", {"text": answer.content})
    yield final_event(answer)


def final_event(answer: Message, detail: str = "") -> bytes:
    """``done`` with the answer, or ``error``; its detail is stored nowhere."""
    if answer.error:
        detail = detail or MODEL_DETAILS.get(answer.error, "The answer is not complete.")
        return event("error", {"code": answer.error, "detail": detail})
    truncated = {"truncated": True} if answer.truncated else {}
    done = {"assistant_message": MessageSerializer(answer).data, "usage": answer.usage}
    return event("done", done | truncated)


def error_event(error: ApiError) -> bytes:
    return event("error", {"code": error.get_codes(), "detail": str(error.detail)})
