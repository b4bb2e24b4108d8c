"""Reads one answer of a model's server, piece by piece, until it has ended it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from django.conf import settings

from chat.answers.completion_parser import CompletionParser
from chat.answers.errors import CompletionError
from chat.answers.reasoning import Piece

if TYPE_CHECKING:
    import httpx2

MAX_ANSWER_CHARS = 2_000_000  # bounds the memory of an endless answer; docs/api/messages.md
END_TIMEOUT_S = 0.1  # for the end of the body after the answer, usually in the same packet
USAGE_TIMEOUT_S = 1.0  # for the count of tokens after the answer, from a server that sends it
CUT_REASONS = {"length", "content_filter"}  # the server ended the answer early, but properly
ToolCalls = tuple[dict[str, Any], ...]  # deltas, as the server sends them


@dataclass
class AnswerCallbacks:
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


class Reader:
    """Reads one answer. Each piece moves the deadline by LLM_TIMEOUT."""

    def __init__(
        self, callbacks: AnswerCallbacks, deadline: asyncio.Timeout, *, sends_usage: bool
    ) -> None:
        self._callbacks = callbacks
        self._deadline = deadline
        self._sends_usage = sends_usage
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
        after_word = self._callbacks.after_word
        if self._has_word and after_word:
            self._callbacks.after_word = None
            await after_word()

    async def _read_to_end(self, chunks: AsyncIterator[bytes]) -> None:
        """Read the rest of the body: the count of tokens, and so that the connection is used again
        for the next turn.
        """
        from retrieval.openai_client import CONNECTION_ERRORS

        self._deadline.reschedule(None)  # the answer is complete
        with suppress(TimeoutError, *CONNECTION_ERRORS, CompletionError, ValueError):
            if self._sends_usage and not (self._parser.usage or self._parser.is_done):
                async with asyncio.timeout(USAGE_TIMEOUT_S):
                    await self._drain(chunks, until_usage=True)
            async with asyncio.timeout(END_TIMEOUT_S):
                await self._drain(chunks)

    async def _drain(self, chunks: AsyncIterator[bytes], *, until_usage: bool = False) -> None:
        async for chunk in chunks:
            for piece in self._parser.feed(chunk):
                self._deliver(piece)
            if until_usage and self._parser.usage:
                return

    def _deliver(self, piece: Piece) -> None:
        if not (piece.text or piece.reasoning or piece.tool_calls):
            return
        self._deadline.reschedule(self._clock() + self._timeout_s)
        self._chars += len(piece.text) + len(piece.reasoning)
        if piece.reasoning:
            self._callbacks.on_reasoning(piece.reasoning)
        if piece.text:
            self._has_word = self._has_word or not piece.text.isspace()
            self._callbacks.on_text(piece.text)
        if piece.tool_calls:
            self._has_tool_call = True
            self._chars += len(str(piece.tool_calls))
            self._callbacks.on_tool_calls(piece.tool_calls)
