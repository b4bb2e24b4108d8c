"""Asks the language model: any OpenAI-compatible server, or the bundled model in this process."""

import asyncio
from contextlib import aclosing, suppress
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings

from chat.answers import local_llm
from chat.answers.answer_reader import AnswerCallbacks, Completion, Reader
from chat.answers.client_messages import Part
from chat.answers.errors import (
    CompletionError,
    CompletionTimeout,
    LLMNotConfigured,
    ModelRefused,
    PromptTooLong,
)
from chat.answers.server_ways import ServerWays, remember_ways, ways_of
from retrieval import steps
from retrieval.service_errors import parse_service_error

if TYPE_CHECKING:
    import httpx2

    from retrieval.openai_client import OpenAIClients

REFUSAL_TIMEOUT_S = 1.0  # for the body of a refusal, which may never end
MAX_REFUSAL_BYTES = 64_000
KEEPALIVE_S = (
    4.0  # of an idle connection; uvicorn, and many model servers with it, closes after 5 s
)


def check_configured() -> None:
    """Raise LLMNotConfigured if no model is configured. Makes no call."""
    if not settings.LLM_CONFIGURED:
        raise LLMNotConfigured(
            "No language model is configured: set LLM_BASE_URL, LLM_API_KEY or OPENAI_API_KEY."
        )


async def complete(
    messages: list[Part], callbacks: AnswerCallbacks, *, parameters: dict[str, Any] | None = None
) -> Completion:
    """Ask for an answer, streamed to the callbacks. ``parameters`` win over LLM_EXTRA_BODY.

    A request is repeated only if the server refuses its form (chat/answers/server_ways.py).

    Raises PromptTooLong, CompletionTimeout, or CompletionError if the model refuses, breaks off,
    sends an invalid stream or no word. Cancelling the call closes the connection, and so ends the
    model's work.
    """
    from retrieval.openai_client import CONNECTION_ERRORS

    try:
        async with asyncio.timeout(settings.LLM_TIMEOUT_S) as deadline:
            request = await _request(messages, parameters or {})
            async with aclosing(request.response) as response:
                if callbacks.before_text:
                    await callbacks.before_text()
                reader = Reader(callbacks, deadline, sends_usage=request.ways.sends_usage)
                completion = await reader.read(response)
                request.remember(sends_usage=completion.usage is not None)
                return completion
    except TimeoutError as error:
        raise CompletionTimeout(
            f"The language model was silent for {settings.LLM_TIMEOUT_S:g} s."
        ) from error
    except (*CONNECTION_ERRORS, ValueError) as error:
        raise CompletionError(
            "The language model could not be reached, or broke off its answer."
        ) from error


@dataclass(frozen=True)
class _Request:
    """A request that a server has accepted, in which way; the response's body is not read yet."""

    base_url: str
    ways: ServerWays
    response: "httpx2.Response"

    def remember(self, *, sends_usage: bool) -> None:
        """Whether the answer came with the server's count of tokens."""
        ways = ways_of(self.base_url)
        if sends_usage != ways.sends_usage:
            remember_ways(self.base_url, replace(ways, sends_usage=sends_usage))


async def _request(messages: list[Part], parameters: dict[str, Any]) -> _Request:
    """Send the request in the server's way."""
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
            return _Request(base_url, ways, response)


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


def llm_address() -> str:
    """The model's host for a log line, without a password that the URL may contain."""
    if settings.LLM == "local":
        return "the bundled model"
    return urlsplit(settings.LLM_BASE_URL).netloc.rpartition("@")[2]
