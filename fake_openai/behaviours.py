"""The ways to answer badly that chat and embeddings share. A behaviour is a value: use it as often as needed."""

from dataclasses import dataclass, field
from typing import Protocol

from fake_openai.exchange import Exchange, error_body, wait
from fake_openai.shapes import JSON, Shape

KINDS = {429: "requests", 500: "server_error", 502: "server_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
LET_THE_CLIENT_READ_S = 0.02  # before a RST, which may overtake bytes that still wait in our socket


class Behaviour(Protocol):
    """One way to answer one request."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        """Answer; return after the last byte. Cancelled when the client goes away."""


@dataclass(frozen=True)
class Refuse:
    """An error status with OpenAI's error object: ``Refuse(429, headers={"Retry-After": "2"})``."""

    status: int
    code: str | None = None
    message: str = "The fake OpenAI refuses this request."
    headers: dict[str, str] = field(default_factory=dict)
    kind: str | None = None  # OpenAI's error.type; None: what OpenAI sends with this status

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await self.send(exchange)

    async def send(self, exchange: Exchange) -> None:
        """The same without a shape: for requests that no endpoint takes."""
        body = error_body(self.message, self._kind(), self.code or CODES.get(self.status))
        await exchange.send_whole(body, status=self.status, content_type=JSON, headers=self.headers)

    def _kind(self) -> str:
        if self.code == "insufficient_quota":
            return self.code  # OpenAI repeats the code as the type
        return self.kind or KINDS.get(self.status, "invalid_request_error")


def RefuseByContent(message: str = "The prompt triggered the content management policy.") -> Refuse:  # noqa: N802
    """400 ``content_filter``; named as the other behaviours, which are classes."""
    return Refuse(400, "content_filter", message)


@dataclass(frozen=True)
class Hang:
    """Take the request and send nothing, not even a head."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await exchange.hang()


@dataclass(frozen=True)
class HangAfter:
    """Send the head and ``text``, then nothing more. Not streamed: the head and two thirds of the JSON."""

    text: str = ""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send(*shape.begun(self.text))
        await exchange.hang()


@dataclass(frozen=True)
class CutAfter:
    """Send the head and ``text``, then close without the end of the body: RST, or FIN with ``reset=False``."""

    text: str = ""
    reset: bool = True

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send(*shape.begun(self.text))
        await wait(LET_THE_CLIENT_READ_S)
        exchange.cut(reset=self.reset)


@dataclass(frozen=True)
class Drop:
    """Close before the first byte of an answer: RST, or FIN with ``reset=False``."""

    reset: bool = True

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.cut(reset=self.reset)


@dataclass(frozen=True)
class EndsWithoutDone:
    """Send ``text`` and a proper end of the body, without finish_reason and ``[DONE]``."""

    text: str = ""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send_last(*shape.begun(self.text))


@dataclass(frozen=True)
class Html:
    """A proxy's page instead of JSON."""

    status: int = 200
    page: str = "<!doctype html><title>Sign in</title><h1>Please sign in to the proxy</h1>"

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await exchange.send_whole(self.page.encode(), status=self.status, content_type="text/html")


@dataclass(frozen=True)
class Garbled:
    """Status 200 with cut-off JSON; streamed: a few good words, one cut-off event, ``[DONE]``."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send_last(*shape.garbled())


@dataclass(frozen=True)
class Empty:
    """No content: only ``[DONE]``; not streamed: an empty string; embeddings: an empty list."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send_last(*shape.empty())


@dataclass(frozen=True)
class Trickle:
    """A good answer (``text``, or the vectors), one byte every ``every_s`` seconds."""

    text: str = "Slow."
    every_s: float = 1.0

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        for byte in b"".join(shape.whole(self.text)):
            await exchange.send(bytes([byte]))
            await wait(self.every_s)
        await exchange.send_last()


@dataclass(frozen=True)
class ErrorEvent:
    """Status 200, ``text``, then an event ``{"error": ...}``; not streamed: that object as the body."""

    text: str = ""
    message: str = "The server had an error while processing your request."
    code: str | None = None

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        error = error_body(self.message, "server_error", self.code)
        await exchange.send_last(*shape.failed(self.text, error))
