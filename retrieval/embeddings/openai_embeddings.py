"""Embeds texts by OpenAI's API or a compatible one: retries, a deadline, checked answers."""

import asyncio
import random
from collections.abc import Sequence

import httpx2
from django.conf import settings
from openai import APIStatusError

from retrieval.embeddings.batching import TextBatch
from retrieval.embeddings.cost import cost_usd
from retrieval.embeddings.errors import (
    EmbeddingError,
    InputRefused,
    InvalidResponse,
    KeyRefused,
    QuotaExceeded,
    RateLimited,
    ServiceUnavailable,
)
from retrieval.embeddings.response import (
    PartlyUsable,
    parse_json,
    parse_retry_after_s,
    used_tokens,
    vectors_of,
)
from retrieval.openai_client import CONNECTION_ERRORS, OpenAIClients, may_have_been_sent
from retrieval.root_cause import root_cause_name
from retrieval.service_errors import ServiceError, parse_service_error
from retrieval.telemetry import metrics
from retrieval.vectors import DIMENSIONS, Bought

# The pause before a retry is random, up to a limit that doubles ("full jitter"), so that many
# clients do not return at the same moment:
# https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_PAUSE_S = 0.2
MAX_PAUSE_S = 2.0
# These depend on the state of the service, not on the request. OpenAI's client retries the same.
RETRIED_STATUSES = {408, 409, 429, *range(500, 600)}
ANSWER_LOST_STATUSES = {408, 502, 504, 524}  # of a gateway: the model may have done its work
KEY_REFUSED_STATUSES = {401, 403}
INPUT_REFUSED_STATUSES = {400, 413, 422}
# Some models have one size of vectors, and some servers one encoding. A service that refuses such a
# parameter is asked without it, until the process ends.
OPTIONAL_PARAMETERS = {"dimensions": DIMENSIONS, "encoding_format": "base64"}
_refused_parameters: dict[tuple[str, str], set[str]] = {}  # (base URL, model); on the event loop


async def embed_batches(
    clients: OpenAIClients, batches: Sequence[TextBatch], *, retries: bool = True
) -> Bought:
    """The vectors of all texts, in order: one API call a batch, one after the other.

    Each call has EMBEDDING_TIMEOUT seconds, retries included; then its connection is closed. The
    first EmbeddingError ends the work.
    """
    try:
        bought = [await _embed_in_time(clients, batch, retries=retries) for batch in batches]
    except InvalidResponse as error:
        if len(batches) > 1:
            error.usable = {}  # they would be places in one of the batches
        raise
    vectors = [vector for part in bought for vector in part.vectors]
    return Bought(vectors, sum(part.tokens for part in bought))


async def _embed_in_time(clients: OpenAIClients, batch: TextBatch, *, retries: bool) -> Bought:
    failures: list[ServiceUnavailable] = []
    try:
        async with asyncio.timeout(settings.EMBEDDING_TIMEOUT_S) as deadline:
            if not retries:
                return await _call(clients, batch)
            return await _retry(clients, batch, failures, deadline_s=deadline.when() or 0.0)
    except TimeoutError:
        before = f"; before: {failures[-1]}" if failures else ""
        raise ServiceUnavailable(
            f"no answer within {settings.EMBEDDING_TIMEOUT_S:g} s{before}", may_be_billed=True
        ) from None


async def _retry(
    clients: OpenAIClients,
    batch: TextBatch,
    failures: list[ServiceUnavailable],
    *,
    deadline_s: float,
) -> Bought:
    """Call until there is an answer, or until a pause would outlast the deadline (loop time)."""
    max_pause_s = FIRST_PAUSE_S
    while True:
        try:
            return await _call(clients, batch)
        except ServiceUnavailable as failure:
            failures.append(failure)
            jitter_s = random.uniform(0, max_pause_s)  # noqa: S311 - no secret
            pause_s = max(jitter_s, failure.retry_after_s or 0)
            if asyncio.get_running_loop().time() + pause_s >= deadline_s:
                raise
        await asyncio.sleep(pause_s)
        max_pause_s = min(2 * max_pause_s, MAX_PAUSE_S)


async def _call(clients: OpenAIClients, batch: TextBatch) -> Bought:
    """One call; a second one if the service refuses an optional parameter."""
    service = settings.OPENAI_BASE_URL, settings.EMBEDDING_MODEL
    refused = set(_refused_parameters.get(service, ()))
    while True:
        response = await _post(clients, batch.texts, without=refused)
        if response.is_success:
            break
        error = parse_service_error(
            response.status_code, response.content, key=settings.OPENAI_API_KEY
        )
        named = {name for name in OPTIONAL_PARAMETERS.keys() - refused if error.names(name)}
        if not named:
            raise _refusal(response, error)
        refused |= named
    if refused:
        _refused_parameters[service] = refused
    try:
        answer = parse_json(response.content)
        tokens = _count_tokens(used_tokens(answer), batch)
        return Bought(vectors_of(answer, count=len(batch.texts)), tokens)
    except ValueError as unusable:
        usable = unusable.usable if isinstance(unusable, PartlyUsable) else {}
        reason = f"the service's answer was not usable: {unusable}"
        raise InvalidResponse(reason, usable=usable) from unusable


async def _post(clients: OpenAIClients, texts: list[str], *, without: set[str]) -> httpx2.Response:
    parameters = {k: v for k, v in OPTIONAL_PARAMETERS.items() if k not in without}
    body = {"model": settings.EMBEDDING_MODEL, "input": texts} | parameters
    metrics.embedding_request_sent()
    try:
        client = clients.get(settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY)
        return await client.send("/embeddings", body)
    except APIStatusError as error:
        return error.response
    except CONNECTION_ERRORS as error:
        raise ServiceUnavailable(
            f"the service cannot be reached ({root_cause_name(error)})",
            may_be_billed=may_have_been_sent(error),
        ) from error


def _count_tokens(tokens: int | None, batch: TextBatch) -> int:
    """What the service counted, or what we counted if it says nothing; added to the metrics."""
    tokens = sum(batch.tokens) if tokens is None else tokens
    metrics.embedding_tokens_used(tokens, cost_usd=cost_usd(tokens))
    return tokens


def _refusal(response: httpx2.Response, error: ServiceError) -> EmbeddingError:
    """The error for a refusal, without the service's message: it can quote the key or a text."""
    status, reason = error.status, error.reason
    retry_after_s = parse_retry_after_s(response.headers)
    if status == 429 and "insufficient_quota" in (error.code, error.kind):
        return QuotaExceeded(
            f"the account's quota is used up: {reason}", retry_after_s=retry_after_s
        )
    if status in KEY_REFUSED_STATUSES:
        return KeyRefused(f"the service refused the key: {reason}")
    if status in INPUT_REFUSED_STATUSES:
        return InputRefused(f"the service refused the text: {reason}")
    if status in RETRIED_STATUSES:
        failed = RateLimited if status == 429 else ServiceUnavailable
        return failed(
            f"the service failed: {reason}",
            retry_after_s=retry_after_s,
            may_be_billed=status in ANSWER_LOST_STATUSES,
        )
    return EmbeddingError(f"the service refused: {reason}")
