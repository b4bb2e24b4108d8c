"""The process's event loop: answers, and calls to services, run on it.

In a server it is the server's own (verse/asgi.py); elsewhere the first call starts one in a daemon
thread. Nothing may block it: what uses the database runs as a step (retrieval/steps.py).
"""

import asyncio
import atexit
import threading
from collections.abc import Awaitable, Callable, Coroutine
from concurrent.futures import Future
from typing import Any, TypeVar, cast

import uvloop

from retrieval.telemetry import spans

T = TypeVar("T")


class _Process:
    """The loop, what ``start`` has begun on it, and how its connections are closed."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.loop: asyncio.AbstractEventLoop | None = None
        self.tasks: set[asyncio.Task[Any]] = set()  # changed on the loop only
        self.close_functions: list[Callable[[], Awaitable[None]]] = []


_process = _Process()


def use_running_loop() -> None:
    """Make the running loop the process's, for a server at its start."""
    _process.loop = asyncio.get_running_loop()


def start(work: Coroutine[Any, Any, T]) -> Future[T]:
    """Run the coroutine on the loop. From any thread; returns at once.

    In a context of its own: the caller's would bind the task to the caller's request. Only the ids
    of log lines and traces are carried over.
    """
    return spans.carried_context().run(
        asyncio.run_coroutine_threadsafe, _remembered(work), _process_loop()
    )


def call_later(delay_s: float, function: Callable[..., object], *args: Any) -> None:
    """Call the function on the loop after ``delay_s``. From any thread; returns at once."""
    loop = _process_loop()
    loop.call_soon_threadsafe(loop.call_later, delay_s, function, *args)


def on_end(close: Callable[[], Awaitable[None]]) -> None:
    """Let ``end`` call this on the loop, to close connections that belong to it."""
    _process.close_functions.append(close)


async def end() -> None:
    """Cancel what ``start`` has begun and what still runs, then close connections."""
    running = _process.tasks - {asyncio.current_task()}
    for task in running:
        task.cancel()
    await asyncio.gather(*running, return_exceptions=True)
    for close in _process.close_functions:
        await close()


async def _remembered(work: Coroutine[Any, Any, T]) -> T:
    task = cast("asyncio.Task[T]", asyncio.current_task())
    _process.tasks.add(task)  # a loop by itself keeps only weak references
    try:
        return await work
    finally:
        _process.tasks.discard(task)


def _process_loop() -> asyncio.AbstractEventLoop:
    with _process.lock:
        if _process.loop is None:
            _process.loop = loop = uvloop.new_event_loop()
            thread = threading.Thread(target=loop.run_forever, name="event loop", daemon=True)
            thread.start()
            atexit.register(_stop, loop, thread)
        return _process.loop


def _stop(loop: asyncio.AbstractEventLoop, thread: threading.Thread) -> None:
    asyncio.run_coroutine_threadsafe(end(), loop).result()
    loop.call_soon_threadsafe(loop.stop)
    thread.join()
    loop.close()
