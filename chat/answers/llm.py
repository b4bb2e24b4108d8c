"""Ask the language model: any OpenAI-compatible chat completions server, or the bundled one in this process."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, suppress
from functools import cache
from typing import Any
from urllib.parse import urlsplit

import httpx2
from django.conf import settings

from chat.answers import local_llm

MAX_ANSWER_CHARS = 2_000_000  # a server that never ends must not fill the memory; docs/api.md
MAX_LINE_BYTES = 16_000_000  # nor a line that never ends
END_S = 0.1  # for the end of the body after "[DONE]", mostly in the same packet
KEEP_S = (
    4.0  # a connection at rest; uvicorn, and with it many a server of models, closes it after 5 s
)
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
        raise NotConfigured(
            "No language model is configured: set LLM_BASE_URL, LLM_API_KEY or OPENAI_API_KEY."
        )


async def complete(parts: list[dict[str, str]], say: Callable[[str], None]) -> None:
    """Ask the model, one streaming call, and ``say`` each piece of its answer as it comes. No call is repeated.

    Raises CompletionTimeout, or CompletionError where the model refuses, breaks off or says what is no answer.
    A cancelled call closes the connection, and so ends the model's work.
    """
    try:
        async with asyncio.timeout(settings.LLM_TIMEOUT_S) as patience, _ask(parts) as response:
            if not response.is_success:
                raise CompletionError(f"The language model refused: status {response.status_code}.")
            await _listen(response, say, patience)
    except TimeoutError as error:
        raise CompletionTimeout(
            f"The language model was silent for {settings.LLM_TIMEOUT_S:g} s."
        ) from error
    except (httpx2.HTTPError, httpx2.InvalidURL, ValueError) as error:
        raise CompletionError(
            "The language model could not be reached, or broke off its answer."
        ) from error


async def _listen(
    response: httpx2.Response, say: Callable[[str], None], patience: asyncio.Timeout
) -> None:
    clock = asyncio.get_running_loop().time
    chars, whole = 0, False
    lines = lines_of(response)
    async for line in lines:
        text, ends = parse_line(line)
        whole = whole or ends
        if text:
            patience.reschedule(clock() + settings.LLM_TIMEOUT_S)
            chars += len(text)
            say(text)
        if line == "data: [DONE]" or chars > MAX_ANSWER_CHARS:
            break
    if not whole or chars > MAX_ANSWER_CHARS:
        raise CompletionError("The language model broke off its answer.")
    await _read_to_end(lines)


async def _read_to_end(lines: AsyncIterator[str]) -> None:
    """Only a connection whose answer was read to its end is used again, and spares the next turn a new one."""
    with suppress(TimeoutError, httpx2.HTTPError, ValueError):
        async with asyncio.timeout(END_S):
            async for _ in lines:
                pass


async def lines_of(response: httpx2.Response) -> AsyncIterator[str]:
    """The body's lines without their ends, as the standard of event streams has them.

    The library's own would also split at U+2028 and the like, in the middle of a JSON text. ValueError: a line
    of more than MAX_LINE_BYTES.
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
    """Where the model is asked, for a log line: without what a URL may hold of a password."""
    return (
        "the bundled model"
        if settings.LLM == "local"
        else urlsplit(settings.LLM_BASE_URL).netloc.rpartition("@")[2]
    )


def _ask(parts: list[dict[str, str]]) -> AbstractAsyncContextManager[httpx2.Response]:
    asked = {
        "model": settings.LLM_MODEL, "messages": parts, "max_tokens": settings.LLM_MAX_TOKENS, "stream": True
    }  # fmt: skip
    base_url, key = settings.LLM_BASE_URL, settings.LLM_API_KEY
    if settings.LLM == "local":
        _, base_url, key = local_llm.serve()
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    url = f"{base_url}/chat/completions"
    return client(asyncio.get_running_loop()).stream("POST", url, json=asked, headers=headers)


@cache
def client(loop: asyncio.AbstractEventLoop) -> httpx2.AsyncClient:
    """The loop's one client: making one costs 30 ms and more, and its connections belong to the loop.

    Plain HTTP and not OpenAI's own client, whose work for a call costs as much as fifty tokens
    (docs/decisions/0001-stack.md). It repeats nothing (a repeated call could be paid for twice) and has no time
    limit of its own: ours counts tokens, and a server that sends other bytes now and then would satisfy a limit
    on bytes.
    """
    return httpx2.AsyncClient(
        timeout=None, limits=httpx2.Limits(max_connections=None, keepalive_expiry=KEEP_S)
    )


async def close() -> None:
    """Close the running loop's connections at rest."""
    await client(asyncio.get_running_loop()).aclose()


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
    choice: dict[str, Any] = next(
        iter(event.get("choices") or []), {}
    )  # a last event may hold the usage alone
    text = (choice.get("delta") or {}).get("content") or ""
    return storable(text), bool(choice.get("finish_reason"))


def storable(text: str) -> str:
    """The text as PostgreSQL can hold it: a NUL or half a surrogate pair becomes U+FFFD."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").translate(PRINTABLE)
