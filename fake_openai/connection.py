"""A client's connection: one exchange at a time, which ends when the client disconnects."""

import asyncio
import socket
import struct
from collections.abc import Awaitable, Callable
from typing import cast

from fake_openai.exchange import Exchange, error_body
from fake_openai.reader import BadRequestError, RequestReader
from fake_openai.record import Outcome, RecordedRequest

RST_ON_CLOSE = struct.pack("ii", 1, 0)  # struct linger: on, 0 s; man 7 socket


class Connection(asyncio.Protocol):
    """Keeps reading during an exchange, so that a disconnect is noticed even in silence.

    Calls ``answer`` once for each request. An exception from it is a bug in a behaviour and is
    added to ``errors``.
    """

    def __init__(
        self,
        answer: Callable[[Exchange], Awaitable[None]],
        connections: set["Connection"],
        errors: list[BaseException],
    ) -> None:
        self._answer = answer
        self._connections = connections
        self._errors = errors
        self._reader = RequestReader()
        self._lost = asyncio.Event()
        self._taken = asyncio.Event()
        self._taken.set()
        self._running: tuple[RecordedRequest, asyncio.Task[None]] | None = None
        self._transport: asyncio.Transport

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)

    def data_received(self, data: bytes) -> None:
        self._reader.feed(data)
        self._begin_next()

    def eof_received(self) -> bool:
        self._end_running("client_gone")
        return False  # the transport closes itself

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        self._lost.set()
        self._end_running("client_gone")

    def pause_writing(self) -> None:
        self._taken.clear()

    def resume_writing(self) -> None:
        self._taken.set()

    def write(self, data: bytes) -> None:
        """Send bytes, or buffer them until the socket accepts them."""
        self._transport.write(data)

    async def flushed(self) -> None:
        """Wait until a slow client has read most of what was written.

        If the client has disconnected, that cancels the waiting task.
        """
        await self._taken.wait()
        if self._transport.is_closing():  # the write failed; connection_lost follows
            await self._lost.wait()

    def close(self, *, reset: bool) -> None:
        """Close by FIN after what was written, or by RST at once."""
        if not reset:
            return self._transport.close()
        if not self._transport.is_closing():
            sock = self._transport.get_extra_info("socket")
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RST_ON_CLOSE)
        return self._transport.abort()

    async def stop(self, *, also_idle: bool) -> None:
        """Reset the connection and wait for its end; an idle one only with ``also_idle``."""
        running = self._running
        if running or also_idle:
            self._end_running("stopped")
            self.close(reset=True)
            await self._lost.wait()
        if running:
            await asyncio.wait([running[1]])

    def _begin_next(self) -> None:
        if self._running or self._transport.is_closing():
            return
        try:
            request = self._reader.take()
        except BadRequestError as error:
            self._refuse(error)
        else:
            if request is not None:
                self._begin(request)

    def _begin(self, request: RecordedRequest) -> None:
        task = asyncio.get_running_loop().create_task(self._play(request))
        self._running = request, task
        task.add_done_callback(self._played)

    async def _play(self, request: RecordedRequest) -> None:
        await self._answer(Exchange(self, request))
        if request.headers.get("connection", "").lower() == "close":
            self._transport.close()

    def _played(self, task: asyncio.Task[None]) -> None:
        self._running = None
        error = None if task.cancelled() else task.exception()
        if error is not None:
            self._errors.append(error)
        if task.cancelled() or error is not None:
            self.close(reset=True)
        self._begin_next()

    def _end_running(self, outcome: Outcome) -> None:
        if self._running:
            request, task = self._running
            request.finish(outcome)
            task.cancel()

    def _refuse(self, error: BadRequestError) -> None:
        body = error_body(str(error), "invalid_request_error")
        headers = f"content-length: {len(body)}\r\nconnection: close\r\n"
        head = f"HTTP/1.1 {error.status} Refused\r\n{headers}\r\n"
        self.write(head.encode() + body)
        self._transport.close()
