"""Asks the language model: any OpenAI-compatible server, or the bundled model in this process."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings

from chat.answers import local_llm
from chat.answers.client_messages import Part
from chat.answers.completion_parser import CompletionParser
from chat.answers.errors import (
    CompletionError,
    CompletionTimeout,
    LLMNotConfigured,
    ModelRefused,
    PromptTooLong,
)
from chat.answers.reasoning import Piece
from chat.answers.server_ways import remember_ways, ways_of
from retrieval import steps
from retrieval.service_errors import parse_service_error

if TYPE_CHECKING:
    import httpx2

    from retrieval.openai_client import OpenAIClients

MAX_ANSWER_CHARS = 2_000_000  # bounds the memory of an endless answer; docs/api/messages.md
END_TIMEOUT_S = 0.1  # for the end of the body after the answer, usually in the same packet
REFUSAL_TIMEOUT_S = 1.0  # for the body of a refusal, which may never end
MAX_REFUSAL_BYTES = 64_000
KEEPALIVE_S = (
    4.0  # of an idle connection; uvicorn, and many model servers with it, closes after 5 s
)
CUT_REASONS = {"length", "content_filter"}  # the server ended the answer early, but properly
ToolCalls = tuple[dict[str, Any], ...]  # deltas, as the server sends them


@dataclass
class Listener:
    """What to call with each piece of an answer, of the reasoning before it, of calls of tools.

    ``before_text`` is awaited once the model has accepted the request, ``after_word`` once the
    answer has its first word.
    """

    on_text: Callable[[str], None]
    on_reasoning: Callable[[str], None] = lambda _: None
    on_tool_calls: Callable[[ToolCalls], None] = lambda _: None
    before_text: Callable[[], Awaitable[None]] | None = None
    after_word: Callable[[], Awaitable[None]] | None = None


@dataclass(frozen=True)
class Completion:
    """How a model's server ended an answer: its own reason, and its count of tokens."""

    finish_reason: str | None = None
    usage: dict[str, Any] | None = None

    @property
    def cut_reason(self) -> str | None:
        """One of CUT_REASONS if the server ended the answer early, else None."""
        return self.finish_reason if self.finish_reason in CUT_REASONS else None


def check_configured() -> None:
    """Raise LLMNotConfigured if no model is configured. Makes no call."""
    if not settings.LLM_CONFIGURED:
        raise LLMNotConfigured(
            "No language model is configured: set LLM_BASE_URL, LLM_API_KEY or OPENAI_API_KEY."
        )


async def complete(
    messages: list[Part], listener: Listener, *, parameters: dict[str, Any] | None = None
) -> Completion:
    """Ask for an answer, streamed to the listener. ``parameters`` win over LLM_EXTRA_BODY.

    A request is repeated only if the server refuses its form (chat/answers/server_ways.py).

    Raises PromptTooLong, CompletionTimeout, or CompletionError if the model refuses, breaks off,
    sends an invalid stream or no word. Cancelling the call closes the connection, and so ends the
    model's work.
    """
    from retrieval.openai_client import CONNECTION_ERRORS

    try:
        async with asyncio.timeout(settings.LLM_TIMEOUT_S) as deadline:
            async with aclosing(await _request(messages, parameters or {})) as response:
                if listener.before_text:
                    await listener.before_text()
                return await _Reader(listener, deadline).read(response)
    except TimeoutError as error:
        raise CompletionTimeout(
            f"The language model was silent for {settings.LLM_TIMEOUT_S:g} s."
        ) from error
    except (*CONNECTION_ERRORS, ValueError) as error:
        raise CompletionError(
            "The language model could not be reached, or broke off its answer."
        ) from error


async def _request(messages: list[Part], parameters: dict[str, Any]) -> "httpx2.Response":
    """Send the request in the server's way; the response's body is not read yet."""
    base_url, key = settings.LLM_BASE_URL, settings.LLM_API_KEY
    if settings.LLM == "local":
        _, base_url, key = await steps.run(local_llm.serve)
    client, ways = _clients().get(base_url, key), ways_of(base_url)
    while True:
        try:
            response = await client.send(
                "/chat/completions", ways.request_body(messages, parameters), stream=True
            )
        except PromptTooLong:
            raise
        except ModelRefused as refusal:
            other_ways = ways.after(refusal.error)
            if other_ways is None:
                raise
            ways = other_ways
        else:
            remember_ways(base_url, ways)
            return response


@cache
def _clients() -> "OpenAIClients":
    """They retry nothing, because a repeated call could be charged twice. They have no timeout:
    ours is for tokens, and a server that sends other bytes now and then would satisfy one for
    bytes.
    """
    from retrieval.openai_client import OpenAIClients

    return OpenAIClients(keepalive_s=KEEPALIVE_S, on_response=_check_status)


async def _check_status(response: "httpx2.Response") -> None:
    """Refuse before OpenAI's client reads the body of a refusal, which may never end."""
    from retrieval.openai_client import CONNECTION_ERRORS, followed_redirect

    if response.is_success or followed_redirect(response):
        return
    body = bytearray()
    with suppress(TimeoutError, *CONNECTION_ERRORS):
        async with asyncio.timeout(REFUSAL_TIMEOUT_S):
            async for chunk in response.aiter_bytes():
                body += chunk
                if len(body) > MAX_REFUSAL_BYTES:
                    break
    key = response.request.headers.get("authorization", "").removeprefix("Bearer ")
    error = parse_service_error(response.status_code, bytes(body[:MAX_REFUSAL_BYTES]), key=key)
    raise PromptTooLong(error) if error.is_too_long else ModelRefused(error)


class _Reader:
    """Reads one answer. Each piece moves the deadline by LLM_TIMEOUT."""

    def __init__(self, listener: Listener, deadline: asyncio.Timeout) -> None:
        self._listener = listener
        self._deadline = deadline
        self._timeout_s: float = settings.LLM_TIMEOUT_S  # read once, not for each piece
        self._clock = asyncio.get_running_loop().time
        self._parser = CompletionParser(key=settings.LLM_API_KEY)
        self._chars = 0
        self._has_word = False
        self._has_tool_call = False

    async def read(self, response: "httpx2.Response") -> Completion:
        chunks = response.aiter_bytes()
        await self._read_until_complete(chunks)
        if self._parser.is_complete:
            await self._read_to_end(chunks)
        for piece in self._parser.end():
            self._deliver(piece)
        reason = self._parser.finish_reason
        if not self._parser.is_complete or self._chars > MAX_ANSWER_CHARS:
            raise CompletionError("The language model broke off its answer.")
        if not self._has_word and not self._has_tool_call:
            ending = f" ({reason})" if reason in CUT_REASONS else ""
            raise CompletionError(f"The language model ended without a word of answer{ending}.")
        await self._call_after_word()
        return Completion(reason, self._parser.usage)

    async def _read_until_complete(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            for piece in self._parser.feed(chunk):
                self._deliver(piece)
            await self._call_after_word()
            if self._parser.is_complete or self._chars > MAX_ANSWER_CHARS:
                return

    async def _call_after_word(self) -> None:
        after_word = self._listener.after_word
        if self._has_word and after_word:
            self._listener.after_word = None
            await after_word()

    async def _read_to_end(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the rest of the body: only then is the connection used again for the next turn."""
        from retrieval.openai_client import CONNECTION_ERRORS

        with suppress(TimeoutError, *CONNECTION_ERRORS, CompletionError, ValueError):
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._drain(chunks)

    async def _drain(self, chunks: AsyncIterator[bytes]) -> None:
        async for chunk in chunks:
            for piece in self._parser.feed(chunk):
                self._deliver(piece)

    def _deliver(self, piece: Piece) -> None:
        if not (piece.text or piece.reasoning or piece.tool_calls):
            return
        self._deadline.reschedule(self._clock() + self._timeout_s)
        self._chars += len(piece.text) + len(piece.reasoning)
        if piece.reasoning:
            self._listener.on_reasoning(piece.reasoning)
        if piece.text:
            self._has_word = self._has_word or not piece.text.isspace()
            self._listener.on_text(piece.text)
        if piece.tool_calls:
            self._has_tool_call = True
            self._chars += len(str(piece.tool_calls))
            self._listener.on_tool_calls(piece.tool_calls)


def llm_address() -> str:
    """The model's host for a log line, without a password that the URL may contain."""
    if settings.LLM == "local":
        return "the bundled model"
    return urlsplit(settings.LLM_BASE_URL).netloc.rpartition("@")[2]
