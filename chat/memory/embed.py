"""Embeds a message and stores its vector with it.

1. ``look_up``, a step on the database: may the message be embedded, and is its text known?
2. ``vectors_of``, on the event loop: one call to the embedding service at most.
3. ``store``, a step on the database.

No transaction is open and no connection held during the call.
"""

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import Future, wait
from contextlib import contextmanager
from dataclasses import dataclass

from django.db import Error

from chat.memory.memory_settings import MemorySettings, memory_settings_of
from chat.models import Message, Role, Status
from retrieval import connection_share, current_model, event_loop, storage
from retrieval.db import NoMemory
from retrieval.db_errors import error_name
from retrieval.embed_queue import jobs
from retrieval.embeddings import embedding_service
from retrieval.embeddings.embedding_service import Call
from retrieval.embeddings.errors import EmbeddingError
from retrieval.recall.question import extract_question
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)

_jobs: set[Future[None]] = set()


@dataclass(frozen=True)
class Vectors:
    """A vector for each text, and how many tokens were bought for them."""

    by_text: dict[str, Vector]
    bought_tokens: int = 0

    def __getitem__(self, text: str) -> Vector:
        return self.by_text[text]


@dataclass(frozen=True)
class PendingEmbedding:
    """A message to embed by ``model``.

    ``question`` is the part that recall searches with, mostly the whole content. ``known`` holds
    vectors that equal texts of the user have; ``call`` is for the others, None if there are none.
    ``of_turn``: its tokens count towards the user's daily limit.
    """

    message: Message
    content: str  # as it is now: a later edit wins
    question: str
    model: str
    known: dict[str, Vector]
    call: Call | None
    of_turn: bool = False


def look_up(
    message: Message, *, memory_settings: MemorySettings | None = None, of_turn: bool = False
) -> PendingEmbedding | None:
    """What is needed to embed the message; None if it must not be, or cannot be. Never fails.

    At most three queries; one less with the user's ``memory_settings``.
    """
    try:
        if not message.content or message.status not in (Status.COMPLETE, Status.INTERRUPTED):
            return None
        model = embedding_service.model_name()
        if model is None:
            return None
        memory_settings = memory_settings or memory_settings_of(message.user_id)
        if not memory_settings.allow(message):
            return None
        current_model.check_model(model)
        return _look_up_texts(message, model, of_turn=of_turn)
    except (EmbeddingError, NoMemory):
        return None  # logged where it was raised
    except Error as error:
        logger.error("Error generating embeddings: %s", error_name(error))
        return None


def look_up_or_queue(message: Message, *, of_turn: bool = False) -> PendingEmbedding | None:
    """``look_up`` for a message that is stored; None if workers embed it. A step."""
    if not jobs.has_workers():
        return look_up(message, of_turn=of_turn)
    if message.content and message.status in (Status.COMPLETE, Status.INTERRUPTED):
        jobs.publish([message.memory_table.pack_ref(message.pk)])
    return None


def _look_up_texts(message: Message, model: str, *, of_turn: bool) -> PendingEmbedding:
    content = message.content
    question = extract_question(content) if message.role == Role.USER else content
    vector = storage.known(message.user_id, content, model=model)
    known = {} if vector is None else {content: vector}
    missing = [text for text in dict.fromkeys((content, question)) if text not in known]
    users = [message.user_id] * len(missing)
    call = embedding_service.prepare(missing, users=users, model=model) if missing else None
    return PendingEmbedding(message, content, question, model, known, call, of_turn)


async def vectors_of(pending: PendingEmbedding) -> Vectors | None:
    """The vectors of the message's texts: one call at most. None if it failed. Never fails."""
    if pending.call is None:
        return Vectors(pending.known)
    try:
        bought = await embedding_service.embed(pending.call)
    except EmbeddingError:
        return None  # logged where it was raised
    except Exception:
        logger.exception("A message could not be embedded")
        return None
    new = dict(zip(pending.call.texts, bought.vectors, strict=True))
    return Vectors(pending.known | new, bought.tokens)


def store(pending: PendingEmbedding, vectors: Vectors) -> None:
    """Store the content's vector with the message, and count its tokens: one statement.

    Never fails. A message that could not be embedded stays pending.
    """
    message = pending.message
    try:
        storage.store_and_count(
            message.memory_table,
            (message.pk, pending.content, vectors[pending.content]),
            model=pending.model,
            user_id=message.user_id,
            tokens=vectors.bought_tokens if pending.of_turn else 0,
        )
    except NoMemory:
        pass
    except Error as error:
        logger.error("Error generating embeddings: not stored, %s", error_name(error))


async def store_when_ready(
    pending: PendingEmbedding, vectors: "asyncio.Task[Vectors | None] | None" = None
) -> None:
    """Make the call, or wait for the one that runs, and store its vector."""
    known = await (vectors or vectors_of(pending))
    if known is not None:
        await connection_share.run(pending.message.user_id, store, pending, known)


def embed_in_background(message: Message) -> Future[None]:
    """Start to embed the message, which is stored, or let a worker do it.

    The future completes at the end, whatever the outcome.
    """
    return remember_job(event_loop.start(_embed(message)))


async def _embed(message: Message) -> None:
    pending = await connection_share.run(message.user_id, look_up_or_queue, message)
    if pending:
        await store_when_ready(pending)


def remember_job(job: Future[None]) -> Future[None]:
    """Let ``finish_embedding_jobs`` wait for it."""
    _jobs.add(job)
    job.add_done_callback(_jobs.discard)
    return job


@contextmanager
def running_job() -> Iterator[None]:
    """Let ``finish_embedding_jobs`` wait for the end of the block."""
    job = remember_job(Future())
    try:
        yield
    finally:
        job.set_result(None)


def finish_embedding_jobs(timeout_s: float | None = None) -> None:
    """Wait for running jobs; for the end of a process, and of tests. Not on the event loop."""
    while jobs := set(_jobs):
        if wait(jobs, timeout=timeout_s).not_done:
            return
