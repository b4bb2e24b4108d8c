"""Runs a process's embedding calls on one event loop in one background thread."""

import asyncio
import atexit
import threading
from collections.abc import Coroutine
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any, TypeVar

import uvloop

if TYPE_CHECKING:
    from retrieval.openai_client import OpenAIClients

T = TypeVar("T")


class EventLoopThread:
    """The loop, its thread, and the clients whose connections belong to the loop.

    What still runs when the process exits is cancelled.
    """

    def __init__(self) -> None:
        self._loop = uvloop.new_event_loop()
        self._clients: OpenAIClients | None = None
        self._thread = threading.Thread(
            target=self._loop.run_forever, name="embeddings", daemon=True
        )
        self._thread.start()
        # A thread that is inside ONNX Runtime when Python exits would abort the process.
        atexit.register(self.stop)

    def run(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Start the work. Call it from any thread except the loop's own."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def clients(self) -> "OpenAIClients":
        """The loop's clients. Only for the loop's thread."""
        from retrieval.openai_client import OpenAIClients

        self._clients = self._clients or OpenAIClients()
        return self._clients

    def stop(self) -> None:
        """Cancel what runs, close the connections, end the thread. Call it once."""
        atexit.unregister(self.stop)
        self.run(self._cancel_and_close()).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _cancel_and_close(self) -> None:
        running = asyncio.all_tasks() - {asyncio.current_task()}
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
        if self._clients:
            await self._clients.close()
