"""One recall on the database, within a time. What is late is ended, and counted as failed.

A statement that waits, for a lock perhaps, must not hold a connection for longer than the turn
waits for it; and those that wait must leave connections for the other steps of turns.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from typing import Generic, TypeVar, cast

from django.conf import settings
from django.db import Error

from chat.memory.recalled import Memory
from retrieval import connection_share, steps
from retrieval.cancellable import Cancellable
from retrieval.db_errors import error_name
from retrieval.rollout import recall_times

T = TypeVar("T")

logger = logging.getLogger(__name__)
LIVE_PARTS = 2  # of the connections: at most a half for recalls that turns wait for
DARK_PARTS = 5  # a fifth for those whose memories are given to no user


@dataclass(frozen=True)
class Recollection:
    """What a recall found. ``seconds`` is None if nothing was to be recalled."""

    memories: list[Memory] = field(default_factory=list)
    seconds: float | None = None
    failed: bool = False

    def count(self, *, added_tokens: int = 0) -> None:
        """Add the recall to the figures of ``rag_rollout``."""
        if self.seconds is not None:
            recall_times.record(self.seconds, failed=self.failed, added_tokens=added_tokens)


@dataclass
class Attempt(Generic[T]):
    """A recall for a user, and what to make of it.

    ``find`` is None if nothing is recalled. ``then`` is called once, in a step: with what ``find``
    found, or without memories if that is late. ``afterwards`` is called in the step of ``find``.
    """

    user_id: int
    find: Callable[[], list[Memory]] | None
    then: Callable[[Recollection], T]
    afterwards: Callable[[], object] = lambda: None
    parts: int = LIVE_PARTS
    ended: Future[None] | None = None  # the step of ``find``
    _first: Future[T | None] = field(default_factory=Future)
    _claim: threading.Lock = field(default_factory=threading.Lock)  # before ``then`` is called
    _statements: Cancellable = field(default_factory=Cancellable)

    async def run(self, *, until: float) -> T:
        """What ``then`` returns; ``until`` in loop time. Raises what ``then`` raises."""
        began = time.perf_counter()
        await self._submit(until)
        first = asyncio.wrap_future(self._first)
        try:
            async with asyncio.timeout_at(until):
                return cast("T", await asyncio.shield(first))
        except TimeoutError:
            if not self._claim.acquire(blocking=False):
                return cast("T", await first)
        _log_timeout()
        steps.submit(self._statements.cancel)
        late = (
            Recollection([], time.perf_counter() - began, failed=True)
            if self.find
            else Recollection()
        )
        return await connection_share.run(self.user_id, self.then, late)

    async def _submit(self, until: float) -> None:
        """Hand the step to a thread, once fewer recalls run; at ``until`` without its recall."""
        free = slots(self.parts) if self.find else None
        if free:
            try:
                async with asyncio.timeout_at(until):
                    await free.acquire()
            except TimeoutError:
                self._statements.is_cancelled, free = True, None
        self.ended = connection_share.submit(self.user_id, self._step)
        if free:
            asyncio.wrap_future(self.ended).add_done_callback(lambda _: free.release())

    def _step(self) -> None:
        try:
            recollection = self._recall()
            result = self.then(recollection) if self._claim.acquire(blocking=False) else None
        except BaseException as error:  # noqa: BLE001 - the waiting task gets it
            self._first.set_exception(error)
        else:
            self._first.set_result(result)
        self.afterwards()

    def _recall(self) -> Recollection:
        if self.find is None:
            return Recollection()
        began = time.perf_counter()
        try:
            with self._statements.running():
                began = time.perf_counter()
                return Recollection(self.find(), time.perf_counter() - began)
        except Error as error:
            if not self._statements.is_cancelled:
                logger.error("Error retrieving relevant context: %s", error_name(error))
            return Recollection([], time.perf_counter() - began, failed=True)


@cache
def slots(parts: int) -> asyncio.Semaphore:
    """How many recalls of a kind may hold a connection at a time. On the event loop."""
    return asyncio.Semaphore(max(settings.DATABASE_POOL_SIZE // parts, 1))


def _log_timeout() -> None:
    logger.error(
        "Error retrieving relevant context: not found within RAG_TIMEOUT, %g s",
        settings.RAG_TIMEOUT_S,
    )
