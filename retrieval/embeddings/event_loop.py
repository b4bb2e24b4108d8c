"""One event loop in one thread: where a process's embedding calls run, whoever waits for them or leaves."""

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar

import httpx2
import uvloop
from django.conf import settings

from retrieval.embeddings.openai_client import make_client

T = TypeVar("T")


class Worker:
    """The loop, its thread and the client that lives in it. What still runs when the process ends is cancelled."""

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._clients: dict[tuple[str, str], httpx2.AsyncClient] = {}
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="embeddings", daemon=True
        )
        self._thread.start()
        # A thread that is inside ONNX Runtime when Python ends would abort the process: ended in time, exit code 0.
        atexit.register(self.stop)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begin the work; may be called from any thread but the loop's own."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def client(self) -> httpx2.AsyncClient:
        """The process's one client; tests change the settings, and each has its own. Only for the loop's thread."""
        key = (settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY)
        if key not in self._clients:
            self._clients[key] = make_client()
        return self._clients[key]

    def stop(self) -> None:
        """Cancel what runs, close the connections, end the thread. Not for a second time."""
        atexit.unregister(self.stop)
        self.run(self._end()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        for client in self._clients.values():
            await client.aclose()
