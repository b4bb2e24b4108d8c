"""Limits how many of a process's connections one user's work holds at a time: a tenth, or one.

One user's turns wait for each other, since each locks the user's row. Without a limit those that
wait would hold every connection of the pool, and all other users would wait too.

Work over the limit waits without a connection, in the order in which it came.
"""

import asyncio
import contextvars
import threading
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from typing import ParamSpec, TypeVar

from django.conf import settings

from retrieval import steps

# Half would leave connections for others, but steps share the processor too: while a user posts
# twelve huge messages, another user's turn takes 1.4 times as long with two of them under way as
# with one (benchmarks/huge_posts.py).
PARTS = 10
P = ParamSpec("P")
T = TypeVar("T")
# Begins the work; False if its caller was cancelled.
Start = Callable[[], bool]


class Shares:
    """How much of each user's work is under way, at most ``limit()`` pieces, and what waits."""

    def __init__(self, limit: Callable[[], int]) -> None:
        self._limit = limit
        self._lock = threading.Lock()  # protects the following
        self._holding: dict[int, int] = {}
        self._waiting: dict[int, deque[Start]] = {}

    def begin(self, user_id: int, start: Start) -> None:
        """Call ``start``, which must not raise: now, or once ``end`` makes room for it."""
        with self._lock:
            holding = self._holding.get(user_id, 0)
            if holding >= self._limit():
                self._waiting.setdefault(user_id, deque()).append(start)
                return
            self._holding[user_id] = holding + 1
        if not start():
            self.end(user_id)

    def ask(self, user_id: int) -> Future[None]:
        """Completes when the caller may begin; after that it must call ``end``."""
        begun: Future[None] = Future()

        def start() -> bool:
            if is_wanted := begun.set_running_or_notify_cancel():
                begun.set_result(None)
            return is_wanted

        self.begin(user_id, start)
        return begun

    def wait(self, user_id: int) -> None:
        """``ask``, and wait until the caller may begin: in a step or any other thread."""
        begun = self.ask(user_id)
        if not begun.done():
            with steps.waiting():
                begun.result()

    def end(self, user_id: int) -> None:
        """The work has ended: the user's next one starts."""
        while (start := self._next(user_id)) is not None:
            if start():
                return

    def _next(self, user_id: int) -> Start | None:
        with self._lock:
            waiting = self._waiting.get(user_id)
            if waiting:
                return waiting.popleft()
            self._waiting.pop(user_id, None)
            self._holding[user_id] -= 1
            if not self._holding[user_id]:
                del self._holding[user_id]
            return None


def connections_of_a_user() -> int:
    """How many of this process's connections the work of one user may hold."""
    return max(settings.DATABASE_POOL_SIZE // PARTS, 1)


_shares = Shares(connections_of_a_user)


@contextmanager
def hold(user_id: int) -> Iterator[None]:
    """Around statements for a user, in a step or any other thread; gives the connection back."""
    _shares.wait(user_id)
    try:
        yield
    finally:
        steps.release_connection()
        _shares.end(user_id)


def submit(user_id: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Future[T]:
    """Run a step for a user: ``steps.submit`` within the limit. Returns at once."""
    outcome: Future[T] = Future()
    context = contextvars.copy_context()

    def start() -> bool:
        if not outcome.set_running_or_notify_cancel():
            return False
        step = context.run(lambda: steps.submit(function, *args, **kwargs))
        step.add_done_callback(finish)
        return True

    def finish(step: Future[T]) -> None:
        _shares.end(user_id)
        error = step.exception()
        if error is None:
            outcome.set_result(step.result())
        else:
            outcome.set_exception(error)

    _shares.begin(user_id, start)
    return outcome


async def run(user_id: int, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run a step for a user; its result. A cancelled caller does not end a step that runs."""
    return await asyncio.wrap_future(submit(user_id, function, *args, **kwargs))
