"""Runs short steps in reused threads: the one place where work leaves the event loop.

A step may use the database; when it ends, its connection goes back to the pool. It never waits for
the network, so a service that hangs cannot fill the threads. Code that must wait nevertheless says
so with ``waiting``.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from queue import SimpleQueue
from typing import Any, ParamSpec, TypeVar

from django.db import connection

P = ParamSpec("P")
T = TypeVar("T")
Step = Callable[[], object]

# More steps at once than any pool of connections has; with two cores 10 to 20 run at a time.
MAX_THREADS = 64


class StepThread(threading.Thread):
    """A daemon thread that runs the steps in its inbox until it gets None."""

    def __init__(self, pool: "StepPool") -> None:
        super().__init__(name="steps", daemon=True)
        self.pool = pool
        self.inbox: SimpleQueue[Step | None] = SimpleQueue()

    def run(self) -> None:
        while (step := self.inbox.get()) is not None:
            while step is not None:
                step()
                step = self.pool.next_step(self)


class StepPool:
    """Runs at most ``max_threads`` steps at once, the others after them in order.

    The thread that became idle last is used first, since its caches are warm. Idle threads stay.
    """

    def __init__(self, max_threads: int) -> None:
        self._max_threads = max_threads
        self._changed = threading.Condition()  # protects the following
        self._idle: list[StepThread] = []
        self._queue: deque[Step] = deque()
        self._running = 0  # steps, without those in ``waiting``

    def add(self, step: Step) -> None:
        """Run the step, which must not raise, in a thread. Returns at once."""
        with self._changed:
            self._queue.append(step)
            self._start_queued()

    def submit(self, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
        """Call the function in a thread, in a copy of the caller's context; its result."""
        future: Future[T] = Future()
        context = contextvars.copy_context()

        def step() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                result = context.run(function, *args, **kwargs)
            except BaseException as error:  # noqa: BLE001 - the caller gets it
                future.set_exception(error)
            else:
                future.set_result(result)

        self.add(step)
        return future

    def next_step(self, thread: StepThread) -> Step | None:
        """The next step for a thread that has ended one; None: it is idle now."""
        with self._changed:
            if self._queue and self._running <= self._max_threads:
                return self._queue.popleft()
            self._running -= 1
            if len(self._idle) < self._max_threads:
                self._idle.append(thread)
            else:  # it was started while others waited
                thread.inbox.put(None)
            self._changed.notify_all()
            return None

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Do not count the calling step as running."""
        with self._changed:
            self._running -= 1
            self._start_queued()
        try:
            yield
        finally:
            with self._changed:
                self._running += 1

    def join(self, timeout_s: float) -> bool:
        """Wait until no step runs; False if some still run after ``timeout_s``."""
        with self._changed:
            return self._changed.wait_for(lambda: not self._running, timeout_s)

    def _start_queued(self) -> None:
        while self._queue and self._running < self._max_threads:
            self._running += 1
            if self._idle:
                thread = self._idle.pop()
            else:
                thread = StepThread(self)
                thread.start()
            thread.inbox.put(self._queue.popleft())


_pool = StepPool(MAX_THREADS)


def submit(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a step, in a copy of the caller's context. The future has its result.

    When it completes, the step's connection is already back in the pool.
    """
    return _pool.submit(lambda: _run_and_release(function, *args, **kwargs))


async def run(function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a step; its result. A cancelled caller does not end a step that runs already."""
    return await asyncio.wrap_future(submit(function, *args, **kwargs))


@contextmanager
def waiting() -> Iterator[None]:
    """Around a wait for something else than the database, in a step or in any other thread.

    Returns the connection to the pool first; inside a transaction it is kept. Meanwhile another
    step may run in place of this one.
    """
    release_connection()
    thread = threading.current_thread()
    if isinstance(thread, StepThread):
        with thread.pool.waiting():
            yield
    else:
        yield


def release_connection() -> None:
    """Return the thread's connection to the pool. Inside a transaction it is kept."""
    if not connection.in_atomic_block:
        connection.close()


def join(timeout_s: float) -> bool:
    """Wait until no step runs, for the end of a process; False if some still run then."""
    return _pool.join(timeout_s)


def _run_and_release(function: Callable[..., T], *args: Any, **kwargs: Any) -> T:
    try:
        return function(*args, **kwargs)
    finally:
        connection.close()
