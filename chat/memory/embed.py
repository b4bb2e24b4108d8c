"""Embeds messages in the background and stores the vector with the message.

The call to the embedding service is made outside any transaction, without a connection.
"""

import logging
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cache

from django.conf import settings
from django.db import Error

from chat.db import release_connection, with_connection
from chat.memory.memory_settings import memory_settings_of
from chat.models import Message, Role, Status
from retrieval import current_model, storage
from retrieval.db import NoMemory
from retrieval.db_errors import error_name
from retrieval.embeddings import embedding_service
from retrieval.embeddings.errors import EmbeddingError
from retrieval.recall.question import extract_question
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)
THREADS = 32  # they mostly wait for the embedding service, without a connection


@dataclass
class EmbeddingJob:
    """A message that is embedded by a background thread.

    ``vector`` is of what the message asks, None if there is none; ``stored``: the job has ended.
    """

    vector: Future[Vector | None] = field(default_factory=Future)
    stored: Future[None] = field(default_factory=Future)

    def vector_within(self, seconds: float) -> Vector | None:
        """The vector, None if it is not ready in time.

        The call goes on: its vector is stored when it comes, and so not paid for twice.
        """
        try:
            return self.vector.result(timeout=max(seconds, 0))
        except TimeoutError:
            embedding_service.record_cut_off()
            logger.error(
                "Error generating embeddings: no answer within RAG_TIMEOUT, %g s",
                settings.RAG_TIMEOUT_S,
            )
            return None


def embed_in_background(message: Message, *, allowed: bool = False) -> EmbeddingJob:
    """Start to embed the message. ``allowed``: the user's memory settings are checked already."""
    job = EmbeddingJob()
    job.stored = memory_executor().submit(
        with_connection, embed_message, message, job.vector, allowed=allowed
    )
    return job


def embed_message(message: Message, vector: Future[Vector | None], *, allowed: bool) -> None:
    """Embed the message, resolve ``vector``, then store it. Never fails.

    A message that could not be embedded stays pending.
    """
    try:
        if message.content and message.status in (Status.COMPLETE, Status.INTERRUPTED):
            _embed(message, vector, allowed=allowed)
    except (EmbeddingError, NoMemory):
        pass  # logged where it was raised
    except Error as error:
        logger.error("Error generating embeddings: not stored, %s", error_name(error))
    except Exception:
        logger.exception("A message could not be embedded")
    finally:
        if not vector.done():
            vector.set_result(None)


def _embed(message: Message, vector: Future[Vector | None], *, allowed: bool) -> None:
    """At most one call; none if an equal text of the same user is embedded already.

    Of a long message two texts are embedded: the whole, to be stored, and the question in it.
    """
    model = embedding_service.model_name()
    if model is None or not (allowed or memory_settings_of(message.user_id).allow(message)):
        return
    current_model.check_model(model)
    content = message.content
    question = extract_question(content) if message.role == Role.USER else content
    known = storage.known(message.user_id, content, model=model)
    vectors = {} if known is None else {content: known}
    missing = [text for text in dict.fromkeys((content, question)) if text not in vectors]
    if missing:
        release_connection()
        call = embedding_service.submit(
            missing, users=[message.user_id] * len(missing), model=model
        )
        vectors |= zip(missing, call.result(), strict=True)
    vector.set_result(vectors[question])
    storage.store(message.memory_table, message.pk, content, vectors[content], model=model)


def finish_embedding_jobs() -> None:
    """Wait for running jobs; for the end of a process, and of tests."""
    if memory_executor.cache_info().currsize:
        memory_executor().shutdown()
        memory_executor.cache_clear()


@cache
def memory_executor() -> ThreadPoolExecutor:
    """The threads for embedding and recall, apart from those of requests."""
    return ThreadPoolExecutor(THREADS, "memory")
