"""An asyncio loop in a daemon thread, listening on 127.0.0.1."""

import asyncio
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")
BACKLOG = 1_024  # connections waiting to be accepted; a load test opens hundreds at once
SETTLE_S = 0.01  # after this time a new connection is in the set of connections to close
TIMEOUT_S = 10.0  # for a call into the loop; much more than needed


class ListeningLoop:
    """Listens from ``start`` to ``stop``. ``make_protocol`` is called for each connection."""

    def __init__(self, make_protocol: Callable[[], asyncio.Protocol]) -> None:
        self._make_protocol = make_protocol
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="fake-openai", daemon=True
        )
        self._server: asyncio.Server

    def start(self, port: int) -> int:
        """Listen. Returns the port, a free one for 0. Raises OSError if the port is taken."""
        self._thread.start()
        try:
            self._server = self.run(self._listen(port))
        except OSError:
            self._end_thread()
            raise
        return int(self._server.sockets[0].getsockname()[1])

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine in the loop from another thread. Returns its result."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(TIMEOUT_S)

    def stop(self, close_connections: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Stop listening, close the connections, end the thread. Blocks until done."""
        self.run(self._stop_listening())
        self.run(close_connections())
        self._end_thread()

    async def _listen(self, port: int) -> asyncio.Server:
        loop = asyncio.get_running_loop()
        return await loop.create_server(self._make_protocol, "127.0.0.1", port, backlog=BACKLOG)

    async def _stop_listening(self) -> None:
        self._server.close()
        await asyncio.sleep(SETTLE_S)

    def _end_thread(self) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
