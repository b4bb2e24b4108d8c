"""One request and the ways to answer it over its connection, well or badly."""

import asyncio
import itertools
import json
import math
from http import HTTPStatus
from typing import Any, Protocol

from fake_openai.record import RecordedRequest

TICK_S = (
    0.005  # waits end on this grid, so that 200 streams wake the loop 200 times a second, not 5,000
)
BUFFER_BYTES = 65_536  # asyncio's high-water mark: what a transport keeps before flushed() waits
_numbers = itertools.count(1)


class Wire(Protocol):
    """What an exchange needs of its connection."""

    def write(self, data: bytes) -> None: ...
    async def flushed(self) -> None: ...
    def close(self, *, reset: bool) -> None: ...


class Exchange:
    """A request being answered.

    A method that sends the last byte notes the request as answered just before: a test that holds the
    whole answer also sees ``outcome == "answered"``.
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
        """Send a complete answer with its length."""
        length = {"content-length": str(len(body))}
        head = self._head(status, {"content-type": content_type} | length | (headers or {}))
        await self._write_last(head + body)

    def start(self, *, status: int = 200, content_type: str) -> None:
        """Send the head of an answer in chunks."""
        headers = {
            "content-type": content_type,
            "transfer-encoding": "chunked",
            "cache-control": "no-cache",
        }
        self._wire.write(self._head(status, headers))

    async def send(self, *pieces: bytes) -> None:
        """Send pieces, each one chunk and one write; wait for a client that reads slowly."""
        for piece in pieces:
            self._wire.write(_chunk(piece))
            await self._wire.flushed()

    async def send_last(self, *pieces: bytes) -> None:
        """Send the last chunks and the end of the body in one write."""
        await self._write_last(b"".join(map(_chunk, pieces)) + b"0\r\n\r\n")

    def cut(self, *, reset: bool) -> None:
        """Close the connection without the end of the body: FIN after what was sent, or RST."""
        self.request.finish("answered")
        self._wire.close(reset=reset)

    async def hang(self) -> None:
        """Send nothing more, until the client goes away or the server is stopped."""
        await asyncio.get_running_loop().create_future()

    async def _write_last(self, data: bytes) -> None:
        # A client may still go away while a long answer waits in our buffer: that is not yet "answered".
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
    """The clock that ``wait_until`` goes by, in seconds."""
    return asyncio.get_running_loop().time()


async def wait_until(moment: float) -> None:
    """Sleep until the loop's time ``moment``, rounded up to the next tick."""
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
    """Sleep, to the tick."""
    await wait_until(loop_time() + seconds)


def error_body(message: str, kind: str, code: str | None = None) -> bytes:
    """OpenAI's error object as JSON."""
    return as_json({"error": {"message": message, "type": kind, "param": None, "code": code}})


def as_json(value: Any) -> bytes:
    """Compact JSON in UTF-8; a text with a lone surrogate goes as \\ud800 escapes, as UTF-8 cannot hold it."""
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
