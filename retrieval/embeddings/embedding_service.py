"""Texts to vectors, by the model that the settings name; calls go on when nobody waits for them any more."""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future

from django.conf import settings

from retrieval.embeddings import local_model, usage
from retrieval.embeddings.batching import pack
from retrieval.embeddings.circuit_breaker import CircuitBreaker
from retrieval.embeddings.event_loop import Worker
from retrieval.embeddings.openai_client import embed_calls
from retrieval.embeddings.vectors import (
    DIMENSIONS,
    CircuitOpen,
    EmbeddingError,
    InputRefused,
    KeyRefused,
    NotConfigured,
    QuotaExceeded,
    Unavailable,
    Unusable,
    Vector,
)
from retrieval.runtime import on_reset

__all__ = [
    "DIMENSIONS",
    "CircuitOpen",
    "EmbeddingError",
    "InputRefused",
    "KeyRefused",
    "NotConfigured",
    "QuotaExceeded",
    "Unavailable",
    "Unusable",
    "Vector",
    "begin",
    "configured_name",
    "get_embedding",
    "get_embeddings_batch",
    "is_paused",
    "model_name",
    "record_cut_off",
    "reset",
]

logger = logging.getLogger(__name__)


class _Process:
    """What a process has once: the worker, made at the first call, and the pause of OpenAI's calls."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.pause = CircuitBreaker(clock)
        self._lock = threading.Lock()
        self._worker: Worker | None = None

    def worker(self) -> Worker:
        with self._lock:
            self._worker = self._worker or Worker()
            return self._worker

    def reset(self, clock: Callable[[], float]) -> None:
        with self._lock:
            worker, self._worker = self._worker, None
            self.pause = CircuitBreaker(clock)
        if worker:
            worker.stop()


_process = _Process(time.monotonic)


def model_name() -> str | None:
    """What the vectors of the present settings come from; None where there will be none. Makes no call."""
    if settings.EMBEDDINGS == "local":
        return local_model.NAME
    usable = settings.EMBEDDINGS == "openai" and settings.OPENAI_API_KEY
    return str(settings.EMBEDDING_MODEL) if usable else None


def configured_name() -> str | None:
    """As model_name, but OpenAI's also where its key is missing: for what asks about a call without making one."""
    return model_name() or (
        str(settings.EMBEDDING_MODEL) if settings.EMBEDDINGS == "openai" else None
    )


def get_embedding(text: str) -> Vector:
    """The text's vector, shape (1536,): one API call. Raises EmbeddingError."""
    return get_embeddings_batch([text])[0]


def get_embeddings_batch(texts: Sequence[str]) -> list[Vector]:
    """A vector a text, in order: one API call for up to 2,048 texts and 290,000 tokens, [] for none.

    A text over 8,191 tokens (256 of the local model's) is embedded from its beginning. Each call has
    EMBEDDING_TIMEOUT seconds, its retries included. Raises EmbeddingError, then with no vectors at all.
    """
    return begin(texts).result()


def begin(texts: Sequence[str]) -> Future[list[Vector]]:
    """The same in the background; the result raises EmbeddingError.

    Whoever stops waiting does not end the call: cancelling the future does nothing. Raises CircuitOpen and NotConfigured
    at once. A failure is logged, once, also where nobody waits.
    """
    if not texts:
        return _done([])
    if model_name() is None:
        raise NotConfigured(
            "no embedding model is configured: EMBEDDINGS=none, or no OPENAI_API_KEY"
        )
    return _begin_local(texts) if settings.EMBEDDINGS == "local" else _begin_openai(texts)


def record_cut_off() -> None:
    """A caller of OpenAI's has stopped waiting: for the pause, a failure."""
    _process.pause.failed()


def is_paused() -> bool:
    """Whether ``begin`` would raise CircuitOpen now."""
    return settings.EMBEDDINGS == "openai" and _process.pause.is_on


def reset(*, clock: Callable[[], float] = time.monotonic) -> None:
    """For tests: end calls, forget the client, failures and pause. The pause goes by ``clock``, in seconds."""
    _process.reset(clock)


on_reset(reset)


def _begin_openai(texts: Sequence[str]) -> Future[list[Vector]]:
    calls = list(pack(texts))  # not in the loop: to count two thousand long texts takes seconds
    pause, worker = _process.pause, _process.worker()

    async def embed() -> list[Vector]:
        return await embed_calls(worker.client(), [call.texts for call in calls])

    pause.enter()
    tokens = sum(call.tokens for call in calls)
    return _watch(worker.run(embed()), pause, texts=len(texts), tokens=tokens)


def _begin_local(texts: Sequence[str]) -> Future[list[Vector]]:
    async def embed() -> list[Vector]:
        vectors: dict[int, Vector] = {}
        for found in local_model.embed_in_runs(
            texts
        ):  # keeps the loop busy, as nothing else does with this setting
            vectors |= found
            await asyncio.sleep(0)  # here the end of the process can stop it
        return [vectors[place] for place in range(len(texts))]

    return _watch(_process.worker().run(embed()), None, texts=len(texts), tokens=0)


def _watch(
    call: Future[list[Vector]], pause: CircuitBreaker | None, *, texts: int, tokens: int
) -> Future[list[Vector]]:
    """The call as its caller sees it: cannot be cancelled, and its end is noted and logged before it is seen."""
    model = configured_name() or ""
    seen: Future[list[Vector]] = Future()
    seen.set_running_or_notify_cancel()

    def end(call: Future[list[Vector]]) -> None:
        error = EmbeddingError("the process is ending") if call.cancelled() else call.exception()
        if pause:
            _note(pause, error)
        usage.record(
            model, usage.OK if error is None else type(error).__name__, texts=texts, tokens=tokens
        )
        if isinstance(error, EmbeddingError):
            logger.error("Error generating embeddings: %s", error)
        if error:
            seen.set_exception(error)
        else:
            seen.set_result(call.result())

    call.add_done_callback(end)
    return seen


def _note(pause: CircuitBreaker, error: BaseException | None) -> None:
    if error is None:
        pause.succeeded()
    elif isinstance(error, InputRefused):
        pause.told_nothing()
    else:
        pause.failed()


def _done(vectors: list[Vector]) -> Future[list[Vector]]:
    future: Future[list[Vector]] = Future()
    future.set_result(vectors)
    return future
