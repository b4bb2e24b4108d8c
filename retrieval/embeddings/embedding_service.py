"""Embeds texts with the configured model: OpenAI's API, or the bundled model in this process.

A call runs on the process's event loop, and goes on if its caller stops waiting.
"""

import asyncio
import logging
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING, Any, cast

from django.conf import settings

from retrieval import event_loop
from retrieval.embeddings import bundled_models, local_thread, usage
from retrieval.embeddings.batching import TextBatch, batch_texts
from retrieval.embeddings.circuit_breaker import CircuitBreaker
from retrieval.embeddings.errors import EmbeddingError, EmbeddingsNotConfigured
from retrieval.runtime import on_reset
from retrieval.vectors import Bought, Vector

if TYPE_CHECKING:
    from retrieval.openai_client import OpenAIClients

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """Texts that are ready to be embedded: their batches (OpenAI), and for whom each is bought.

    ``retries``: as for ``submit``.
    """

    texts: list[str]
    model: str
    users: list[int | None]
    batches: list[TextBatch]
    retries: bool = True

    @property
    def tokens(self) -> list[int]:
        """The number of tokens of each text; 0 for the bundled models, which cost nothing."""
        return [n for batch in self.batches for n in batch.tokens] or [0] * len(self.texts)


class _Process:
    """What each process has once: the circuit breaker, and its running calls."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self.breaker = CircuitBreaker(clock)
        self.calls: set[asyncio.Task[Any]] = set()
        self.ending = threading.Event()  # ends the bundled model's work


_process = _Process(time.monotonic)


def model_name() -> str | None:
    """The model of new vectors. None if the settings allow no calls.

    Makes no call; one query every 15 s if the database chooses among the bundled models, so not on
    the event loop.
    """
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        return None
    return configured_name()


def configured_name() -> str | None:
    """Like ``model_name``, but also OpenAI's model if its key is missing."""
    if settings.EMBEDDINGS == "local":
        return bundled_models.chosen() or bundled_models.kept() or bundled_models.DEFAULT
    return str(settings.EMBEDDING_MODEL) if settings.EMBEDDINGS == "openai" else None


def model_to_use() -> str | None:
    """The model that ``rag_model use`` makes the current one: ``model_name``, or a newer default.

    Makes no call.
    """
    if settings.EMBEDDINGS == "local":
        return bundled_models.chosen() or bundled_models.DEFAULT
    return model_name()


def get_embedding(text: str) -> Vector:
    """The text's vector, shape (1536,): one API call. Raises EmbeddingError."""
    return get_embeddings_batch([text])[0]


def get_embeddings_batch(texts: Sequence[str]) -> list[Vector]:
    """A vector for each text, in order: one API call for up to 2,048 texts and 290,000 tokens.

    The first 8,191 tokens of a text count (256 or fewer for a bundled model). Each call has
    EMBEDDING_TIMEOUT seconds, retries included. Raises EmbeddingError; then no vectors are returned
    at all.
    """
    return submit(texts).result()


def submit(
    texts: Sequence[str],
    *,
    users: Sequence[int | None] | None = None,
    model: str | None = None,
    retries: bool = True,
) -> Future[list[Vector]]:
    """Like ``get_embeddings_batch``, in the background. The result raises EmbeddingError.

    ``users``: for whom each text is bought, so that usage is counted by user; None: not known.
    ``model``: ``model_name()`` if the caller has it already. ``retries``: False for a caller that
    tries again itself; then the circuit breaker does not stop the call, nor count it.
    The future cannot be cancelled: the call goes on if its caller stops waiting. A failure is
    logged once, also without a caller. Raises CircuitOpen and EmbeddingsNotConfigured at once.
    """
    result: Future[list[Vector]] = Future()
    result.set_running_or_notify_cancel()
    if not texts:
        result.set_result([])
        return result
    call = replace(prepare(texts, users=users, model=model), retries=retries)
    breaker = _allow() if retries else None

    async def complete() -> None:
        try:
            result.set_result((await _run(call, breaker)).vectors)
        except BaseException as error:  # noqa: BLE001 - the caller gets it
            result.set_exception(error)

    event_loop.start(complete())
    return result


def prepare(
    texts: Sequence[str],
    *,
    users: Sequence[int | None] | None = None,
    model: str | None = None,
) -> Call:
    """The texts as a call for ``embed``. Makes no call. Raises EmbeddingsNotConfigured.

    Not on the event loop, which it would block: to count the tokens of long texts takes time.
    """
    model = model or model_name()
    if model is None:
        raise EmbeddingsNotConfigured(
            "no embedding model is configured: EMBEDDINGS=none, or no OPENAI_API_KEY"
        )
    is_local = settings.EMBEDDINGS == "local"
    batches = [] if is_local else list(batch_texts(texts))
    return Call(list(texts), model, list(users or [None] * len(texts)), batches)


async def embed(call: Call) -> Bought:
    """The vector of each text of the call, and the service's count of their tokens.

    For tasks on the process's event loop.

    Raises EmbeddingError, which is logged, and CircuitOpen, which is not.
    """
    return await _run(call, _allow())


def record_cut_off() -> None:
    """Tell the circuit breaker that a caller stopped waiting: it counts as a failure."""
    _process.breaker.record(TimeoutError())


def is_paused() -> bool:
    """Whether ``submit`` would raise CircuitOpen now."""
    return settings.EMBEDDINGS == "openai" and _process.breaker.is_open


def reset(*, clock: Callable[[], float] = time.monotonic) -> None:
    """For tests: cancel calls, close connections, and start with a new circuit breaker."""
    global _process
    ended, _process = _process, _Process(clock)

    async def end() -> None:
        for call in ended.calls:
            call.cancel()
        await asyncio.gather(*ended.calls, return_exceptions=True)
        await _clients().close()

    ended.ending.set()
    if _clients.cache_info().currsize:
        event_loop.start(end()).result()


on_reset(reset)


def _allow() -> CircuitBreaker | None:
    """The circuit breaker, which waits for the call's outcome; None for the bundled model.

    Raises CircuitOpen.
    """
    if settings.EMBEDDINGS == "local":
        return None
    _process.breaker.before_call()
    return _process.breaker


async def _run(call: Call, breaker: CircuitBreaker | None) -> Bought:
    """Make the call. Its outcome is counted and logged before this returns."""
    process, task = _process, cast("asyncio.Task[Any]", asyncio.current_task())
    process.calls.add(task)
    error: Exception | None = None
    try:
        return await _buy(call, process)
    except asyncio.CancelledError:
        error = EmbeddingError("the process is ending")
        raise error from None
    except Exception as failure:
        error = failure
        raise
    finally:
        process.calls.discard(task)
        _record(call, breaker, error)


async def _buy(call: Call, process: _Process) -> Bought:
    if not call.batches:
        work = local_thread.submit(call.texts, call.model, process.ending)
        return Bought(await asyncio.wrap_future(work))
    from retrieval.embeddings.openai_embeddings import embed_batches  # imports openai

    return await embed_batches(_clients(), call.batches, retries=call.retries)


def _record(call: Call, breaker: CircuitBreaker | None, error: Exception | None) -> None:
    if breaker:
        breaker.record(error)
    outcome = usage.OK if error is None else type(error).__name__
    usage.record(call.model, outcome, tokens=call.tokens, users=call.users)
    if isinstance(error, EmbeddingError):
        logger.error("Error generating embeddings: %s", error)


@cache
def _clients() -> "OpenAIClients":
    from retrieval.openai_client import OpenAIClients

    return OpenAIClients()
