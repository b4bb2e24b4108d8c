"""Embeds texts with the configured model: OpenAI's API, or the bundled model in this process.

A call runs on a background event loop, and goes on if its caller stops waiting.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from django.conf import settings

from retrieval.embeddings import local_model, usage
from retrieval.embeddings.batching import batch_texts
from retrieval.embeddings.circuit_breaker import CircuitBreaker
from retrieval.embeddings.errors import EmbeddingError, EmbeddingsNotConfigured
from retrieval.embeddings.event_loop import EventLoopThread
from retrieval.runtime import on_reset
from retrieval.vectors import Vector

logger = logging.getLogger(__name__)


class _Process:
    """What each process has once: the circuit breaker, and the loop, started by the first call."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.breaker = CircuitBreaker(clock)
        self._lock = threading.Lock()
        self._loop: EventLoopThread | None = None

    def loop(self) -> EventLoopThread:
        with self._lock:
            self._loop = self._loop or EventLoopThread()
            return self._loop

    def reset(self, clock: Callable[[], float]) -> None:
        with self._lock:
            loop, self._loop = self._loop, None
            self.breaker = CircuitBreaker(clock)
        if loop:
            loop.stop()


_process = _Process(time.monotonic)


def model_name() -> str | None:
    """The model of new vectors. None if the settings allow no calls.

    Makes no call; one query every 15 s if the database chooses among the bundled models.
    """
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        return None
    return configured_name()


def configured_name() -> str | None:
    """Like ``model_name``, but also OpenAI's model if its key is missing."""
    if settings.EMBEDDINGS == "local":
        return local_model.chosen() or local_model.kept() or local_model.DEFAULT
    return str(settings.EMBEDDING_MODEL) if settings.EMBEDDINGS == "openai" else None


def model_to_use() -> str | None:
    """The model that ``rag_model use`` makes the current one: ``model_name``, or a newer default.

    Makes no call.
    """
    if settings.EMBEDDINGS == "local":
        return local_model.chosen() or local_model.DEFAULT
    return model_name()


def get_embedding(text: str) -> Vector:
    """The text's vector, shape (1536,): one API call. Raises EmbeddingError."""
    return get_embeddings_batch([text])[0]


def get_embeddings_batch(texts: Sequence[str]) -> list[Vector]:
    """A vector for each text, in order: one API call for up to 2,048 texts and 290,000 tokens.

    Of a text, 8,191 tokens count (256 or fewer for a bundled model). Each call has
    EMBEDDING_TIMEOUT seconds, retries included. Raises EmbeddingError; then no vectors are returned
    at all.
    """
    return submit(texts).result()


def submit(
    texts: Sequence[str],
    *,
    users: Sequence[int | None] | None = None,
    model: str | None = None,
) -> Future[list[Vector]]:
    """Like ``get_embeddings_batch``, in the background. The result raises EmbeddingError.

    ``users``: for whom each text is bought, so that usage is counted by user; None: not known.
    ``model``: ``model_name()`` if the caller has it already.
    The future cannot be cancelled: the call goes on if its caller stops waiting. A failure is
    logged once, also without a caller. Raises CircuitOpen and EmbeddingsNotConfigured at once.
    """
    if not texts:
        return _completed([])
    model = model or model_name()
    if model is None:
        raise EmbeddingsNotConfigured(
            "no embedding model is configured: EMBEDDINGS=none, or no OPENAI_API_KEY"
        )
    owners = users or [None] * len(texts)
    if settings.EMBEDDINGS == "local":
        return _submit_local(texts, owners, model)
    return _submit_openai(texts, owners, model)


def record_cut_off() -> None:
    """Tell the circuit breaker that a caller stopped waiting: it counts as a failure."""
    _process.breaker.record(TimeoutError())


def is_paused() -> bool:
    """Whether ``submit`` would raise CircuitOpen now."""
    return settings.EMBEDDINGS == "openai" and _process.breaker.is_open


def reset(*, clock: Callable[[], float] = time.monotonic) -> None:
    """For tests: cancel calls, close clients, and start with a new circuit breaker."""
    _process.reset(clock)


on_reset(reset)


def _submit_openai(
    texts: Sequence[str], users: Sequence[int | None], model: str
) -> Future[list[Vector]]:
    from retrieval.embeddings.openai_embeddings import embed_batches  # imports openai

    # Not on the loop, which it would block: counting the tokens of 2,000 long texts takes seconds.
    # And not after before_call(): an error before record() would leave the circuit breaker waiting.
    batches = list(batch_texts(texts))
    breaker, loop = _process.breaker, _process.loop()

    async def embed() -> list[Vector]:
        return await embed_batches(loop.clients(), [batch.texts for batch in batches])

    breaker.before_call()
    tokens = [count for batch in batches for count in batch.tokens]
    return _watch(loop.run(embed()), breaker, model, tokens=tokens, users=users)


def _submit_local(
    texts: Sequence[str], users: Sequence[int | None], model: str
) -> Future[list[Vector]]:
    async def embed() -> list[Vector]:
        vectors: dict[int, Vector] = {}
        # Blocks the loop, which has no other work with EMBEDDINGS=local. Between runs the end of
        # the process can cancel it.
        for run_vectors in local_model.embed_in_runs(texts, model):
            vectors |= run_vectors
            await asyncio.sleep(0)
        return [vectors[index] for index in range(len(texts))]

    return _watch(_process.loop().run(embed()), None, model, tokens=[0] * len(texts), users=users)


def _watch(
    call: Future[list[Vector]],
    breaker: CircuitBreaker | None,
    model: str,
    *,
    tokens: Sequence[int],
    users: Sequence[int | None],
) -> Future[list[Vector]]:
    """The caller's future of the call. The outcome is counted and logged before it completes.

    ``tokens`` and ``users``: of each text.
    """
    result: Future[list[Vector]] = Future()
    result.set_running_or_notify_cancel()

    def complete(call: Future[list[Vector]]) -> None:
        error = EmbeddingError("the process is ending") if call.cancelled() else call.exception()
        if breaker:
            breaker.record(error)
        outcome = usage.OK if error is None else type(error).__name__
        usage.record(model, outcome, tokens=tokens, users=users)
        if isinstance(error, EmbeddingError):
            logger.error("Error generating embeddings: %s", error)
        if error:
            result.set_exception(error)
        else:
            result.set_result(call.result())

    call.add_done_callback(complete)
    return result


def _completed(vectors: list[Vector]) -> Future[list[Vector]]:
    future: Future[list[Vector]] = Future()
    future.set_result(vectors)
    return future
