"""Turns a Reply into OpenAI's response: one JSON object, or a stream of chunks."""

from collections.abc import AsyncIterator
from concurrent.futures import TimeoutError as NotReady
from contextlib import aclosing, suppress
from typing import Any

from django.http.response import HttpResponseBase
from rest_framework import exceptions
from rest_framework.request import Request
from rest_framework.response import Response

from chat.answers.live_answer import SSE_KEEPALIVE_S, LiveAnswer, Reasoning
from chat.api.events import KEEPALIVE, live_pieces
from chat.api.negotiation import EVENT_STREAM
from chat.api.responses import REPLAYED, stream
from chat.errors import MODEL_DETAILS, MODEL_STATUS, ModelError
from chat.models import Message
from chat.openai_api.chunks import (
    DONE,
    Chunks,
    Head,
    event,
    finish_reason_of,
    merged_calls,
    usage_of,
    whole,
)
from chat.openai_api.errors import as_error_object
from chat.openai_api.request_body import CompletionBody
from chat.services import Reply
from retrieval import steps


def render(request: Request, reply: Reply, body: CompletionBody) -> HttpResponseBase:
    """The answer as the client asks for it. Raises ModelError, NotFound, ApiError."""
    if not body.stream:
        return as_object(reply, body)
    if reply.live and not _may_stream(reply.live):
        return as_object(reply, body)  # raises: the model could not be asked
    head = Head(reply.turn.answer if reply.live is None else reply.live.turn.answer, body.model)
    chunks = Chunks(head, include_usage=body.include_usage)
    events = live_chunks(reply.live, chunks, body) if reply.live else replayed(reply, chunks, body)
    headers = {"Cache-Control": "no-cache"} | _headers(reply)
    return stream(request, events, content_type=EVENT_STREAM, headers=headers)


def as_object(reply: Reply, body: CompletionBody) -> Response:
    """The whole answer, waited for without a database connection."""
    live, answer, reasoning = reply.live, reply.turn.answer, []
    if live:

        def collect(piece: str | None) -> None:
            if isinstance(piece, Reasoning):
                reasoning.append(piece)

        live.listen(collect, from_start=True)
        with steps.waiting():
            answer = _complete(live)
    message: dict[str, Any] = {"role": "assistant", "content": answer.content, "refusal": None}
    if reasoning:
        message["reasoning_content"] = "".join(reasoning)
    if live and live.tool_calls:
        message["tool_calls"] = merged_calls(live.tool_calls)
        message["content"] = answer.content or None
    data = whole(
        Head(answer, body.model),
        message,
        finish_reason=finish_reason_of(answer, live),
        usage=usage_of(live),
    )
    return Response(data, headers=_headers(reply))


async def live_chunks(
    live: LiveAnswer, chunks: Chunks, body: CompletionBody
) -> AsyncIterator[bytes]:
    """The answer as it is generated. An error is the last event, without ``[DONE]``."""
    yield chunks.delta({"role": "assistant", "content": ""})
    sent_calls = 0
    async with aclosing(live_pieces(live, from_start=True)) as all_pieces:
        async for pieces in all_pieces:
            calls, sent_calls = live.tool_calls[sent_calls:], len(live.tool_calls)
            encoded = [_chunk(chunks, piece) for piece in pieces if piece]
            if calls:
                encoded.append(chunks.delta({"tool_calls": calls}))
            yield b"".join(encoded) or KEEPALIVE
    try:
        answer = _complete(live)
    except exceptions.APIException as error:
        yield event(as_error_object(error))
        return
    yield chunks.delta({}, finish_reason=finish_reason_of(answer, live))
    if body.include_usage:
        yield chunks.usage(await steps.run(usage_of, live))
    yield DONE


async def replayed(reply: Reply, chunks: Chunks, body: CompletionBody) -> AsyncIterator[bytes]:
    """An answer that was given before, in one piece."""
    answer = reply.turn.answer
    yield chunks.delta({"role": "assistant", "content": answer.content})
    yield chunks.delta({}, finish_reason=finish_reason_of(answer, None))
    if body.include_usage:
        yield chunks.usage(usage_of(None))
    yield DONE


def _chunk(chunks: Chunks, piece: str) -> bytes:
    name = "reasoning_content" if isinstance(piece, Reasoning) else "content"
    return chunks.text(name, piece)


def _may_stream(live: LiveAnswer) -> bool:
    """Waits until the prompt is ready, or the turn stored, but not until a proxy gives up."""
    with steps.waiting(), suppress(NotReady):
        return live.may_stream.result(SSE_KEEPALIVE_S)
    return True


def _complete(live: LiveAnswer) -> Message:
    """The finished answer. Raises ModelError, NotFound, or why the turn could not be stored."""
    answer = live.saved.result()
    if live.refusal:
        raise live.refusal
    if answer is None:
        raise exceptions.NotFound
    if answer.error:
        detail = (live.ending and live.ending.detail) or MODEL_DETAILS.get(answer.error, "")
        code = answer.error if answer.error in MODEL_STATUS else "llm_error"
        raise ModelError(code, detail)
    return answer


def _headers(reply: Reply) -> dict[str, str]:
    turn = reply.live.turn if reply.live else reply.turn
    headers = {"X-Verse-Chat": str(turn.conversation.pk)} if turn.answer.pk else {}
    return headers | (REPLAYED if reply.replayed else {})
