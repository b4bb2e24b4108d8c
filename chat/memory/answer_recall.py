"""The memories for one answer, within RAG_TIMEOUT, and the embedding of its question.

First a step on the database (``read``), then the embedding service on the event loop, then a step
that recalls (``recall_then``). No connection is held while the service is asked.
"""

import asyncio
import logging
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from typing import Generic, TypeVar, cast

from django.conf import settings
from django.db import Error

from chat.memory import embed
from chat.memory.embed import PendingEmbedding, Vectors
from chat.memory.memory_settings import MemorySettings, memory_settings_of
from chat.memory.recall import can_recall, find_memories
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval import connection_share, event_loop, steps
from retrieval.db_errors import error_name
from retrieval.embeddings import embedding_service
from retrieval.recall.candidates import Scope
from retrieval.recall.greetings import is_greeting

T = TypeVar("T")

logger = logging.getLogger(__name__)
MIN_RECALL_S = 1.0  # for recall by words, if waiting for the embedding used up RAG_TIMEOUT


@dataclass(frozen=True)
class RecallRequest:
    """A message that is answered, and what may be recalled for it."""

    message: Message
    limit: int  # of memories; 0: nothing is recalled
    scope: Scope
    pending: PendingEmbedding | None

    def without(self, refs: Sequence[int]) -> "RecallRequest":
        """The same request; the messages that ``refs`` name are not recalled."""
        scope = replace(self.scope, excluded=[*self.scope.excluded, *refs])
        return replace(self, scope=scope)


@dataclass(frozen=True)
class Recalled(Generic[T]):
    """What was made of the memories. ``stored``: the step that stores the question's vector."""

    result: T
    stored: Future[None] | None = None
    deadline: float = 0.0  # loop time
    pending: PendingEmbedding | None = None  # of the question
    vectors: Vectors | None = None

    async def wait_until_stored(self) -> None:
        """Wait for ``stored``, until RAG_TIMEOUT is over."""
        remaining_s = self.deadline - asyncio.get_running_loop().time()
        if self.stored and not self.stored.done() and remaining_s > 0:
            await asyncio.wait([asyncio.wrap_future(self.stored)], timeout=remaining_s)

    def store_vectors(self) -> None:
        """Store the question's vector, for a question that was saved later. One statement."""
        if self.pending and self.vectors:
            embed.store(self.pending, self.vectors)


def read(message: Message, *, limit: int) -> RecallRequest:
    """What is needed to recall for the message. A step of up to four queries. Never fails."""
    allowed = MemorySettings(enabled=False, hidden=[])
    recalls = False
    try:
        allowed = memory_settings_of(message.user_id)
        recalls = allowed.allow(message) and can_recall()
    except Error as error:
        logger.error("Error retrieving relevant context: %s", error_name(error))
    pending = embed.look_up(message, memory_settings=allowed)
    excluded = [message.memory_table.pack_ref(message.pk)] if message.pk else []
    scope = Scope(message.user_id, excluded=excluded, hidden=allowed.hidden)
    return RecallRequest(message, limit if recalls else 0, scope, pending)


def recall_for_answer(message: Message, *, history: Sequence[Message], limit: int) -> list[Memory]:
    """Up to ``limit`` memories for the answer to the message, best first. Never fails.

    Embeds the message too. If that takes longer than RAG_TIMEOUT, words alone decide. Nothing of
    ``history`` is recalled. Not on the event loop.
    """

    async def recall() -> list[Memory]:
        try:
            async with asyncio.timeout(settings.RAG_TIMEOUT_S):
                request = await connection_share.run(message.user_id, read, message, limit=limit)
        except TimeoutError:
            _log_timeout()
            return []
        recalled = await recall_then(request.without(refs_of(history)), list)
        await recalled.wait_until_stored()
        return recalled.result

    with steps.waiting():
        return event_loop.start(recall()).result()


def without_memory(message: Message) -> RecallRequest:
    """For a message that is neither embedded nor recalled for. No query."""
    return RecallRequest(message, 0, Scope(message.user_id), None)


def refs_of(messages: Sequence[Message]) -> list[int]:
    return [message.memory_table.pack_ref(message.pk) for message in messages]


async def recall_then(request: RecallRequest, then: Callable[[list[Memory]], T]) -> Recalled[T]:
    """Embed the question, recall, and call ``then`` with the memories in the same step.

    All within RAG_TIMEOUT: without a vector by then words alone decide, without a recall there are
    no memories. Raises what ``then`` raises.
    """
    loop, user_id = asyncio.get_running_loop(), request.message.user_id
    deadline = loop.time() + settings.RAG_TIMEOUT_S
    vectors = await _vectors_until(deadline, request.pending)
    first: Future[T | None] = Future()
    claim = threading.Lock()  # taken once, before ``then`` is called

    def recall_in_time() -> T | None:
        memories = _recall(request, vectors)
        return then(memories) if claim.acquire(blocking=False) else None

    def step() -> None:
        _resolve(first, recall_in_time)
        if request.pending and vectors and request.message.pk:
            embed.store(request.pending, vectors)

    stored = connection_share.submit(user_id, step)
    recalling = asyncio.wrap_future(first)
    try:
        async with asyncio.timeout_at(max(deadline, loop.time() + MIN_RECALL_S)):
            await asyncio.shield(recalling)
    except TimeoutError:
        if claim.acquire(blocking=False):
            _log_timeout()
            result = await connection_share.run(user_id, then, [])
            return Recalled(result, stored, deadline, request.pending, vectors)
    result = cast("T", await recalling)
    return Recalled(result, stored, deadline, request.pending, vectors)


async def _vectors_until(deadline: float, pending: PendingEmbedding | None) -> Vectors | None:
    """The question's vectors, None if they are not there at the deadline (loop time).

    The call goes on: its vector is stored when it comes, and so not paid for twice.
    """
    if pending is None:
        return None
    if pending.call is None:
        return pending.known
    call = asyncio.create_task(embed.vectors_of(pending))
    try:
        async with asyncio.timeout_at(deadline):
            return await asyncio.shield(call)
    except (TimeoutError, asyncio.CancelledError) as error:
        embed.remember_job(event_loop.start(embed.store_when_ready(pending, call)))
        if not isinstance(error, TimeoutError):
            raise
    embedding_service.record_cut_off()
    logger.error(
        "Error generating embeddings: no answer within RAG_TIMEOUT, %g s", settings.RAG_TIMEOUT_S
    )
    return None


def _recall(request: RecallRequest, vectors: Vectors | None) -> list[Memory]:
    if not request.limit or is_greeting(request.message.content):
        return []
    text, limit = request.message.content, request.limit
    vector = vectors[request.pending.question] if request.pending and vectors else None
    try:
        return find_memories(text, request.scope, vector, limit=limit, for_answer=True).memories
    except Error as error:
        logger.error("Error retrieving relevant context: %s", error_name(error))
        return []


def _resolve(future: Future[T], function: Callable[[], T]) -> None:
    try:
        future.set_result(function())
    except BaseException as error:  # noqa: BLE001 - the waiting task gets it
        future.set_exception(error)


def _log_timeout() -> None:
    logger.error(
        "Error retrieving relevant context: not found within RAG_TIMEOUT, %g s",
        settings.RAG_TIMEOUT_S,
    )
