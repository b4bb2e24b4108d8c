"""The memories for one answer, within RAG_TIMEOUT, and the embedding of its question.

First a step on the database (``read``), then the embedding service on the event loop, then a step
that recalls (``recall_then``). No connection is held while the service is asked.
"""

import asyncio
import logging
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field, replace
from typing import Generic, TypeVar

from django.conf import settings
from django.db import Error

from chat.memory import embed
from chat.memory.embed import PendingEmbedding, Vectors
from chat.memory.memory_settings import MemorySettings, memory_settings_of
from chat.memory.recall import can_recall, find_memories
from chat.memory.recall_attempt import DARK_PARTS, Attempt, Recollection
from chat.memory.recalled import Memory
from chat.models import Message
from retrieval import connection_share, event_loop, steps
from retrieval.db_errors import error_name
from retrieval.embeddings import embedding_service
from retrieval.recall.candidates import Scope
from retrieval.recall.greetings import is_greeting
from retrieval.rollout import state
from retrieval.rollout.state import State
from retrieval.telemetry import spans

T = TypeVar("T")

logger = logging.getLogger(__name__)
MIN_RECALL_S = 1.0  # for recall by words, if the embedding has used up RAG_TIMEOUT


@dataclass(frozen=True)
class RecallRequest:
    """A message that is answered, and what may be recalled for it."""

    message: Message
    limit: int  # of memories; 0: nothing is recalled
    scope: Scope
    pending: PendingEmbedding | None
    rollout: State = field(default_factory=State)

    def without(self, refs: Sequence[int]) -> "RecallRequest":
        """The same request; the messages that ``refs`` name are not recalled."""
        scope = replace(self.scope, excluded=[*self.scope.excluded, *refs])
        return replace(self, scope=scope)


@dataclass(frozen=True)
class Prepared(Generic[T]):
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

    @property
    def bought_tokens(self) -> int:
        """What the question's vectors cost."""
        return self.vectors.bought_tokens if self.vectors else 0

    def store_vectors(self) -> None:
        """Store the question's vector, for a question that was saved later. One statement."""
        if self.pending and self.vectors:
            embed.store(self.pending, self.vectors)


def read(message: Message, *, limit: int) -> RecallRequest:
    """What is needed to recall for the message. A step of up to four queries; now and then
    two more for the state of ``rag_rollout``. Never fails."""
    allowed = MemorySettings(enabled=False, hidden=[])
    recalls, rollout = False, State()
    try:
        allowed = memory_settings_of(message.user_id)
        recalls = allowed.allow(message) and can_recall()
        rollout = state.current()
    except Error as error:
        logger.error("Error retrieving relevant context: %s", error_name(error))
    pending = embed.look_up(message, memory_settings=allowed, of_turn=True)
    excluded = [message.memory_table.pack_ref(message.pk)] if message.pk else []
    scope = Scope(message.user_id, excluded=excluded, hidden=allowed.hidden)
    return RecallRequest(message, limit if recalls else 0, scope, pending, rollout)


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
            logger.error(
                "Error retrieving relevant context: not read within RAG_TIMEOUT, %g s",
                settings.RAG_TIMEOUT_S,
            )
            return []
        recalled = await recall_then(request.without(refs_of(history)), counted)
        await recalled.wait_until_stored()
        return recalled.result

    def counted(recollection: Recollection) -> list[Memory]:
        recollection.count()
        return recollection.memories

    with steps.waiting():
        return event_loop.start(recall()).result()


def without_memory(message: Message) -> RecallRequest:
    """For a message that is neither embedded nor recalled for. No query."""
    return RecallRequest(message, 0, Scope(message.user_id), None)


def refs_of(messages: Sequence[Message]) -> list[int]:
    return [message.memory_table.pack_ref(message.pk) for message in messages]


async def recall_then(request: RecallRequest, then: Callable[[Recollection], T]) -> Prepared[T]:
    """Embed the question, recall, and call ``then`` with what was found in the same step.

    Waits RAG_TIMEOUT for the vector and for the recall, and for the recall at least MIN_RECALL_S.
    Without a vector by then words alone decide, without a recall there are no memories. Raises what
    ``then`` raises.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + settings.RAG_TIMEOUT_S
    with spans.step("turn.embedding"):
        vectors = await _vectors_until(deadline, request.pending)

    def store() -> None:
        if request.pending and vectors and request.message.pk:
            embed.store(request.pending, vectors)

    attempt = Attempt(request.message.user_id, _finder(request, vectors), then, store)
    with spans.step("turn.recall"):
        result = await attempt.run(until=max(deadline, loop.time() + MIN_RECALL_S))
    return Prepared(result, attempt.ended, deadline, request.pending, vectors)


def recall_in_the_dark(
    request: RecallRequest, vectors: Vectors | None, then: Callable[[Recollection], None]
) -> None:
    """Recall for a turn that is given nothing, while it goes on. On the event loop."""

    async def recall() -> None:
        attempt = Attempt(
            request.message.user_id, _finder(request, vectors), then, parts=DARK_PARTS
        )
        await attempt.run(until=asyncio.get_running_loop().time() + settings.RAG_TIMEOUT_S)

    embed.remember_job(event_loop.start(recall()))


def _finder(request: RecallRequest, vectors: Vectors | None) -> Callable[[], list[Memory]] | None:
    """The recall's two statements; None if nothing is recalled for the request."""
    if not request.limit or is_greeting(request.message.content):
        return None
    vector = vectors[request.pending.question] if request.pending and vectors else None
    text, limit = request.message.content, request.limit
    return lambda: find_memories(text, request.scope, vector, limit=limit, for_answer=True).memories


async def _vectors_until(deadline: float, pending: PendingEmbedding | None) -> Vectors | None:
    """The question's vectors, None if they are not there at the deadline (loop time).

    The call goes on: its vector is stored when it comes, and so not paid for twice.
    """
    if pending is None:
        return None
    if pending.call is None:
        return Vectors(pending.known)
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
