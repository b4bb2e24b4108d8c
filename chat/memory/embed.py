"""Messages are remembered: embedded, by one call outside any transaction, and stored beside their text."""

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
WORKERS = 32  # they wait for the embedding service, without a connection


@dataclass
class EmbeddingJob:
    """A message that is being remembered, in a thread of its own."""

    vector: Future[Vector | None] = field(
        default_factory=Future
    )  # of what it asks; None: there is none
    stored: Future[None] = field(default_factory=Future)  # the work is over

    def vector_within(self, seconds: float) -> Vector | None:
        """The embedding of what the message asks; None where there is none yet.

        A call under way is not cut off: its vector is stored when it comes, and so not bought twice.
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
    """Begin to remember the message; ``allowed``: the caller has looked at the switches."""
    work = EmbeddingJob()
    work.stored = memory_executor().submit(
        with_connection, embed_message, message, work.vector, allowed=allowed
    )
    return work


def embed_message(message: Message, vector: Future[Vector | None], *, allowed: bool) -> None:
    """Embed the message, tell its ``vector``, then store it. It does not fail: a row without one stays pending."""
    try:
        if message.content and message.status in (Status.COMPLETE, Status.INTERRUPTED):
            _embed(message, vector, allowed=allowed)
    except (EmbeddingError, NoMemory):  # said in the log where it happened
        pass
    except Error as error:
        logger.error("Error generating embeddings: not stored, %s", error_name(error))
    except Exception:
        logger.exception("A message could not be remembered")
    finally:
        if not vector.done():
            vector.set_result(None)


def _embed(message: Message, vector: Future[Vector | None], *, allowed: bool) -> None:
    """At most one call, outside any transaction; none for a text of the same user that is embedded already.

    Of a long message two texts are embedded: itself, to be stored, and what it asks.
    """
    model = embedding_service.model_name()
    if model is None or not (allowed or memory_settings_of(message.user_id).allow(message)):
        return
    current_model.check_model(model)
    content = message.content
    asked = extract_question(content) if message.role == Role.USER else content
    known = storage.known(message.user_id, content, model=model)
    vectors = {} if known is None else {content: known}
    missing = [text for text in dict.fromkeys((content, asked)) if text not in vectors]
    if missing:
        release_connection()
        vectors |= zip(missing, embedding_service.submit(missing).result(), strict=True)
    vector.set_result(vectors[asked])
    storage.store(message.memory_table, message.pk, content, vectors[content], model=model)


def finish_embedding_jobs() -> None:
    """Wait for the work that is under way; for the end of a process, and of tests."""
    if memory_executor.cache_info().currsize:
        memory_executor().shutdown()
        memory_executor.cache_clear()


@cache
def memory_executor() -> ThreadPoolExecutor:
    """The threads in which memory's work waits, beside the requests'."""
    return ThreadPoolExecutor(WORKERS, "memory")
