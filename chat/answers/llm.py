"""Asks the language model: any OpenAI-compatible server, or the bundled model in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import aclosing, suppress
from functools import cache
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from django.conf import settings

from chat.answers import local_llm
from retrieval import steps

if TYPE_CHECKING:
    import httpx2

    from retrieval.openai_client import OpenAIClients

MAX_ANSWER_CHARS = 2_000_000  # bounds the memory of an endless answer; docs/api/messages.md
MAX_LINE_BYTES = 16_000_000  # bounds the memory of an endless line
END_TIMEOUT_S = 0.1  # for the end of the body after "[DONE]", usually in the same packet
KEEPALIVE_S = (
    4.0  # of an idle connection; uvicorn, and many model servers with it, closes after 5 s
)
REPLACED = {0: "\N{REPLACEMENT CHARACTER}"}  # PostgreSQL's text type cannot store NUL


class CompletionError(Exception):
    """The model gave no complete answer. ``code`` and the message are shown to the user."""

    code = "llm_error"


class CompletionTimeout(CompletionError):
    """No token within LLM_TIMEOUT seconds of the request or of the token before."""

    code = "llm_timeout"


class LLMNotConfigured(CompletionError):
    """No language model is configured; no call was made."""

    code = "llm_not_configured"


def check_configured() -> None:
    """Raise LLMNotConfigured if no model is configured. Makes no call."""
    if not settings.LLM_CONFIGURED:
        raise LLMNotConfigured(
            "No language model is configured: set LLM_BASE_URL, LLM_API_KEY or OPENAI_API_KEY."
        )


async def complete(
    messages: list[dict[str, str]],
    on_text: Callable[[str], None],
    *,
    before_text: Callable[[], Awaitable[None]] | None = None,
) -> None:
    """Make one streaming call; ``on_text`` gets each piece of the answer. Nothing is retried.

    ``before_text`` is awaited once the model has accepted the request, before the first piece.

    Raises CompletionTimeout, or CompletionError if the model refuses, stops early or sends an
    invalid stream. Cancelling the call closes the connection, and so ends the model's work.
    """
    from retrieval.openai_client import CONNECTION_ERRORS

    try:
        async with asyncio.timeout(settings.LLM_TIMEOUT_S) as deadline:
            async with aclosing(await _request(messages)) as response:
                if before_text:
                    await before_text()
                await _read_answer(response, on_text, deadline)
    except TimeoutError as error:
        raise CompletionTimeout(
            f"The language model was silent for {settings.LLM_TIMEOUT_S:g} s."
        ) from error
    except (*CONNECTION_ERRORS, ValueError) as error:
        raise CompletionError(
            "The language model could not be reached, or broke off its answer."
        ) from error


async def _request(messages: list[dict[str, str]]) -> "httpx2.Response":
    """Send the request; the response's body is not read yet."""
    body = {
        "model": settings.LLM_MODEL,
        "messages": messages,
        "max_tokens": settings.LLM_MAX_TOKENS,
        "stream": True,
    }
    base_url, key = settings.LLM_BASE_URL, settings.LLM_API_KEY
    if settings.LLM == "local":
        _, base_url, key = await steps.run(local_llm.serve)
    client = _clients().get(base_url, key)
    return await client.send("/chat/completions", body, stream=True)


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
    if not response.is_success:
        raise CompletionError(f"The language model refused: status {response.status_code}.")


async def _read_answer(
    response: "httpx2.Response", on_text: Callable[[str], None], deadline: asyncio.Timeout
) -> None:
    clock = asyncio.get_running_loop().time
    chars, complete = 0, False
    lines = lines_of(response)
    async for line in lines:
        text, ends = parse_line(line)
        complete = complete or ends
        if text:
            deadline.reschedule(clock() + settings.LLM_TIMEOUT_S)
            chars += len(text)
            on_text(text)
        if line == "data: [DONE]" or chars > MAX_ANSWER_CHARS:
            break
    if not complete or chars > MAX_ANSWER_CHARS:
        raise CompletionError("The language model broke off its answer.")
    await _read_to_end(lines)


async def _read_to_end(lines: AsyncIterator[str]) -> None:
    """Read the rest of the body: only then is the connection used again for the next turn."""
    from retrieval.openai_client import CONNECTION_ERRORS

    with suppress(TimeoutError, *CONNECTION_ERRORS, ValueError):
        async with asyncio.timeout(END_TIMEOUT_S):
            async for _ in lines:
                pass


async def lines_of(response: "httpx2.Response") -> AsyncIterator[str]:
    """The body's lines without their ends, split as the standard of event streams says.

    httpx2's own iterator would also split at U+2028 and others, inside a JSON text. Raises
    ValueError for a line of more than MAX_LINE_BYTES.
    """
    rest = b""
    async for chunk in response.aiter_bytes():
        lines = (rest + chunk).splitlines(keepends=True)
        rest = b"" if lines[-1].endswith((b"\n", b"\r")) else lines.pop()
        for line in lines:
            yield line.decode(errors="replace").rstrip("\r\n")
        if len(rest) > MAX_LINE_BYTES:
            raise ValueError("the line does not end")
    yield rest.decode(errors="replace")


def llm_address() -> str:
    """The model's host for a log line, without a password that the URL may contain."""
    if settings.LLM == "local":
        return "the bundled model"
    return urlsplit(settings.LLM_BASE_URL).netloc.rpartition("@")[2]


def parse_line(line: str) -> tuple[str, bool]:
    """The text that a line of the event stream adds, and whether it says the answer is complete.

    Raises CompletionError for an error event, ValueError for an invalid event.
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
    # A last event without choices may hold the usage.
    choice: dict[str, Any] = next(iter(event.get("choices") or []), {})
    text = (choice.get("delta") or {}).get("content") or ""
    return storable(text), bool(choice.get("finish_reason"))


def storable(text: str) -> str:
    """The text as PostgreSQL can store it: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").translate(REPLACED)
