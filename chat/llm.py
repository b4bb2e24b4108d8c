"""Ask the language model: any OpenAI-compatible chat completions server, or the bundled one in this process."""

import asyncio
import json
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, aclosing
from functools import cache
from typing import Any

import httpx2
import openai
from django.conf import settings
from openai._response import AsyncAPIResponse

from chat import local_llm

MAX_ANSWER_CHARS = 2_000_000  # a server that never ends must not fill the memory; docs/api.md
PRINTABLE = {0: "\N{REPLACEMENT CHARACTER}"}  # PostgreSQL's text cannot hold NUL


class CompletionError(Exception):
    """The model gave no whole answer; ``code`` and the words are fit for the user, without secrets."""

    code = "llm_error"


class CompletionTimeout(CompletionError):
    """No token within LLM_TIMEOUT seconds of the request or of the token before it."""

    code = "llm_timeout"


class NotConfigured(CompletionError):
    """No language model is set; nothing was asked."""

    code = "llm_not_configured"


def check_configured() -> None:
    """Raise NotConfigured where no model is set. Makes no call."""
    if not settings.LLM_CONFIGURED:
        raise NotConfigured("No language model is configured: set LLM_BASE_URL, LLM_API_KEY or OPENAI_API_KEY.")


async def complete(parts: list[dict[str, str]]) -> AsyncGenerator[str, None]:
    """The answer, piece by piece, from one streaming call. No call is repeated.

    Raises CompletionTimeout, or CompletionError where the model refuses, breaks off or says what is no answer.
    Closing the iterator closes the connection, and so ends the model's work.
    """
    try:
        async with aclosing(_pieces(parts)) as pieces:
            async for text in pieces:
                yield text
    except TimeoutError as error:
        raise CompletionTimeout(f"The language model was silent for {settings.LLM_TIMEOUT_S:g} s.") from error
    except openai.APIStatusError as error:
        raise CompletionError(f"The language model refused: status {error.status_code}.") from error
    except (openai.OpenAIError, httpx2.HTTPError, ValueError) as error:
        raise CompletionError("The language model could not be reached, or broke off its answer.") from error


async def _pieces(parts: list[dict[str, str]]) -> AsyncGenerator[str, None]:
    clock = asyncio.get_running_loop().time
    due = clock() + settings.LLM_TIMEOUT_S
    chars = 0
    async with AsyncExitStack() as stack:
        async with asyncio.timeout_at(due):
            response = await stack.enter_async_context(_ask(parts))
        lines = response.iter_lines()
        whole = False
        # The lines themselves are parsed: the client's event objects cost twenty times as much (docs/decisions/0001).
        while (line := await _next(lines, due)) is not None:
            text, ends = parse_line(line)
            whole = whole or ends
            if text:
                due = clock() + settings.LLM_TIMEOUT_S
                chars += len(text)
                yield text
            if line == "data: [DONE]" or chars > MAX_ANSWER_CHARS:
                break
        if not whole or chars > MAX_ANSWER_CHARS:
            raise CompletionError("The language model broke off its answer.")


async def _next(lines: AsyncIterator[str], due: float) -> str | None:
    """The next line, None at the end; TimeoutError at the loop's time ``due``."""
    async with asyncio.timeout_at(due):
        return await anext(lines, None)


def _ask(parts: list[dict[str, str]]) -> AbstractAsyncContextManager[AsyncAPIResponse[Any]]:
    return client().chat.completions.with_streaming_response.create(
        model=settings.LLM_MODEL,
        messages=parts,  # type: ignore[arg-type] # plain dictionaries of the same shape
        max_tokens=settings.LLM_MAX_TOKENS,
        stream=True,
    )


@cache
def client() -> openai.AsyncOpenAI:
    """The process's one client, for the loop of its running answers: making one costs 65 ms and more.

    It repeats nothing (a repeated call could be paid for twice) and has no time limit of its own: ours counts
    tokens, and a server that sends other bytes now and then would satisfy a limit on bytes.
    """
    base_url, key = settings.LLM_BASE_URL, settings.LLM_API_KEY
    if settings.LLM == "local":
        _, base_url, key = local_llm.serve()
    return openai.AsyncOpenAI(base_url=base_url, api_key=key or "none", max_retries=0, timeout=None)


def parse_line(line: str) -> tuple[str, bool]:
    """The text that a line of the event stream adds, and whether it tells that the answer is whole.

    Raises CompletionError for an error that the server sends inside the stream, ValueError for what is no event.
    """
    name, _, data = line.partition(":")
    if name != "data":
        return "", False  # comments, event names, empty lines
    data = data.strip()
    if data == "[DONE]":
        return "", True
    event = json.loads(data)
    if not isinstance(event, dict) or event.get("error"):
        raise CompletionError("The language model broke off its answer with an error.")
    choice: dict[str, Any] = next(iter(event.get("choices") or []), {})  # a last event may hold the usage alone
    text = (choice.get("delta") or {}).get("content") or ""
    return storable(text), bool(choice.get("finish_reason"))


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it: a NUL or half a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").translate(PRINTABLE)
