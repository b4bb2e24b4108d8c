"""Bad answers that chat and embeddings share. A behaviour is a value and can be used repeatedly."""

from dataclasses import dataclass, field
from typing import Protocol

from fake_openai.exchange import Exchange, error_body, wait
from fake_openai.shapes import JSON, Shape

KINDS = {429: "requests", 500: "server_error", 502: "server_error", 503: "server_error"}
CODES = {401: "invalid_api_key", 429: "rate_limit_exceeded"}
READ_DELAY_S = 0.02  # before a RST, which can overtake bytes that wait in our socket


class Behaviour(Protocol):
    """A way to answer one request."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        """Answer; return after the last byte. Cancelled when the client disconnects."""


@dataclass(frozen=True)
class Refuse:
    """An error status with OpenAI's error object: ``Refuse(429, headers={"Retry-After": "2"})``."""

    status: int
    code: str | None = None
    message: str = "The fake OpenAI refuses this request."
    headers: dict[str, str] = field(default_factory=dict)
    kind: str | None = None  # OpenAI's error.type; None: the usual type of this status

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await self.send(exchange)

    async def send(self, exchange: Exchange) -> None:
        """Answer without a shape, for requests that belong to no endpoint."""
        body = error_body(self.message, self._kind(), self.code or CODES.get(self.status))
        await exchange.send_whole(body, status=self.status, content_type=JSON, headers=self.headers)

    def _kind(self) -> str:
        if self.code == "insufficient_quota":
            return self.code  # OpenAI repeats the code as the type
        return self.kind or KINDS.get(self.status, "invalid_request_error")


CONTENT_REFUSAL = "The prompt triggered the content management policy."


def RefuseByContent(message: str = CONTENT_REFUSAL) -> Refuse:  # noqa: N802 # like a class
    """400 ``content_filter``."""
    return Refuse(400, "content_filter", message)


@dataclass(frozen=True)
class Hang:
    """Read the request and send nothing, not even a status line."""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        await exchange.hang()


@dataclass(frozen=True)
class HangAfter:
    """Send ``text``, then nothing more. Not streamed: two thirds of the JSON."""

    text: str = ""

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send(*shape.begun(self.text))
        await exchange.hang()


@dataclass(frozen=True)
class CutAfter:
    """Send ``text``, then close before the body ends: by RST, or by FIN if not ``reset``."""

    text: str = ""
    reset: bool = True

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        await exchange.send(*shape.begun(self.text))
        await wait(READ_DELAY_S)
        exchange.cut(reset=self.reset)


@dataclass(frozen=True)
class Drop:
    """Close before the first byte of an answer: by RST, or by FIN if not ``reset``."""

    reset: bool = True

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.cut(reset=self.reset)


@dataclass(frozen=True)
class EndsWithoutDone:
    """Send ``text`` and end the body correctly, but without finish_reason and ``[DONE]``."""

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
    """200 with truncated JSON. Streamed: a few good words, a truncated event, ``[DONE]``."""

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
    """200, ``text``, then an event ``{"error": ...}``. Not streamed: that object alone."""

    text: str = ""
    message: str = "The server had an error while processing your request."
    code: str | None = None

    async def play(self, exchange: Exchange, shape: Shape) -> None:
        exchange.start(content_type=shape.content_type)
        error = error_body(self.message, "server_error", self.code)
        await exchange.send_last(*shape.failed(self.text, error))
