"""Messages are remembered: embedded, by one call outside any transaction, and stored beside their text."""

import logging
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import cache

from django.conf import settings
from django.db import Error

from chat.connections import release, with_connection
from chat.models import Message, Status
from chat.switches import switches_of
from retrieval import current_model, embeddings, storage
from retrieval.embeddings import EmbeddingError, Vector
from retrieval.sql import NoMemory

logger = logging.getLogger(__name__)
WORKERS = 32  # they wait for the embedding service, without a connection


def remember_within(message: Message, *, seconds: float) -> Vector | None:
    """Embed the message, wait at most ``seconds`` for it; its embedding, None where there is none (yet).

    A call under way is not cut off: its vector is stored when it comes, and so not bought twice.
    """
    started = time.monotonic()
    job = remember_later(message)
    release()
    try:
        return job.result(timeout=max(seconds - (time.monotonic() - started), 0))
    except TimeoutError:
        embeddings.note_cut_off()
        logger.error("Error generating embeddings: no answer within RAG_TIMEOUT, %g s", settings.RAG_TIMEOUT_S)
        return None


def remember_later(message: Message) -> Future[Vector | None]:
    """Begin to embed the message, in a thread of its own."""
    return workers().submit(with_connection, remember, message)


def remember(message: Message) -> Vector | None:
    """Embed the message and store it beside its text; None where that cannot be: the row stays pending.

    At most one call, outside any transaction; none for a text of the same user that is embedded already.
    """
    model = embeddings.model_name()
    if model is None or not message.content or message.status not in (Status.COMPLETE, Status.INTERRUPTED):
        return None
    try:
        if not switches_of(message.user_id).allow(message):
            return None
        current_model.check_model(model)
        vector = storage.known(message.user_id, message.content, model=model)
        if vector is None:
            release()
            (vector,) = embeddings.begin([message.content]).result()
        storage.store(message.memory_source, message.pk, message.content, vector, model=model)
    except (EmbeddingError, NoMemory):  # said in the log where it happened
        return None
    except Error as error:
        logger.error("Error generating embeddings: not stored, %s", type(error.__cause__ or error).__name__)
        return None
    return vector


def finish() -> None:
    """Wait for the work that is under way; for the end of a process, and of tests."""
    if workers.cache_info().currsize:
        workers().shutdown()
        workers.cache_clear()


@cache
def workers() -> ThreadPoolExecutor:
    """The threads in which memory's work waits, beside the requests'."""
    return ThreadPoolExecutor(WORKERS, "memory")
