"""A request, and low-level ways to answer it over its connection."""

import asyncio
import itertools
import json
import math
from http import HTTPStatus
from typing import Any, Protocol

from fake_openai.record import RecordedRequest

# Waits end at multiples of this, so that 200 streams wake the loop 200 times a second, not 5,000.
TICK_S = 0.005
BUFFER_BYTES = 65_536  # asyncio's high-water mark: flushed() waits above it
_numbers = itertools.count(1)


class Wire(Protocol):
    """What an exchange needs from its connection."""

    def write(self, data: bytes) -> None: ...
    async def flushed(self) -> None: ...
    def close(self, *, reset: bool) -> None: ...


class Exchange:
    """A request and its answer.

    The outcome is set to "answered" before the last byte is sent: a test that has received the
    whole answer always sees that outcome.
    """

    def __init__(self, wire: Wire, request: RecordedRequest) -> None:
        self._wire = wire
        self.request = request
        self.number = next(_numbers)

    async def send_whole(
        self,
        body: bytes,
        *,
        status: int = 200,
        content_type: str,
        headers: dict[str, str] | None = None,
    ) -> None:
        """Send a complete answer with a Content-Length."""
        length = {"content-length": str(len(body))}
        head = self._head(status, {"content-type": content_type} | length | (headers or {}))
        await self._write_last(head + body)

    def start(self, *, status: int = 200, content_type: str) -> None:
        """Send the status line and headers of a chunked answer."""
        headers = {
            "content-type": content_type,
            "transfer-encoding": "chunked",
            "cache-control": "no-cache",
        }
        self._wire.write(self._head(status, headers))

    async def send(self, *pieces: bytes) -> None:
        """Send each piece as one chunk in one write. Waits for a slow client."""
        for piece in pieces:
            self._wire.write(_chunk(piece))
            await self._wire.flushed()

    async def send_last(self, *pieces: bytes) -> None:
        """Send the last chunks and the end of the body in one write."""
        await self._write_last(b"".join(map(_chunk, pieces)) + b"0\r\n\r\n")

    def cut(self, *, reset: bool) -> None:
        """Close before the body ends, by RST or by FIN after what was sent."""
        self.request.finish("answered")
        self._wire.close(reset=reset)

    async def hang(self) -> None:
        """Send nothing more, until the client disconnects or the server stops."""
        await asyncio.get_running_loop().create_future()

    async def _write_last(self, data: bytes) -> None:
        # The client may disconnect while a long answer is buffered: that is not yet "answered".
        if len(data) > BUFFER_BYTES:
            self._wire.write(data[:-1])
            await self._wire.flushed()
            data = data[-1:]
        self.request.finish("answered")
        self._wire.write(data)

    def _head(self, status: int, headers: dict[str, str]) -> bytes:
        headers = {"x-request-id": f"req_{self.number}"} | headers
        lines = [
            f"HTTP/1.1 {status} {_phrase(status)}",
            *(f"{name}: {value}" for name, value in headers.items()),
        ]
        return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def loop_time() -> float:
    """The clock of ``wait_until``, in seconds."""
    return asyncio.get_running_loop().time()


async def wait_until(moment: float) -> None:
    """Sleep until this time of the loop's clock, rounded up to the next tick."""
    loop = asyncio.get_running_loop()
    if moment <= loop.time():
        return
    woken = loop.create_future()
    timer = loop.call_at(math.ceil(moment / TICK_S) * TICK_S, _wake, woken)
    try:
        await woken
    finally:
        timer.cancel()


async def wait(seconds: float) -> None:
    """Sleep, rounded up to the next tick."""
    await wait_until(loop_time() + seconds)


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    return as_json({"error": {"message": message, "type": kind, "param": None, "code": code}})


def as_json(value: Any) -> bytes:
    """Compact JSON: UTF-8, or ASCII if a text has lone surrogates, which UTF-8 cannot encode."""
    try:
        return json.dumps(value, ensure_ascii=False, separators=(",", ":")).encode()
    except UnicodeEncodeError:
        return json.dumps(value, separators=(",", ":")).encode()


def _chunk(piece: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(piece), piece) if piece else b""


def _phrase(status: int) -> str:
    try:
        return HTTPStatus(status).phrase
    except ValueError:
        return "Unknown"


def _wake(woken: "asyncio.Future[None]") -> None:
    if not woken.done():
        woken.set_result(None)
