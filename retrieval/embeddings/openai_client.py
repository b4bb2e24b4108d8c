"""Ask OpenAI, or a server that speaks like it, for embeddings: retries within a deadline, answers checked."""

import asyncio
import random
import re
from collections.abc import Iterable

import httpx2
from django.conf import settings

from retrieval.embeddings.response import error_in, retry_after_s, vectors_in
from retrieval.embeddings.vectors import (
    DIMENSIONS,
    EmbeddingError,
    InputRefused,
    KeyRefused,
    QuotaExceeded,
    Unavailable,
    Unusable,
    Vector,
)

# Pauses between tries are random up to a limit that doubles ("full jitter"), so that many clients do not come back
# at once; https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/
FIRST_PAUSE_S = 0.2
LONGEST_PAUSE_S = 2.0
# Meant for the service's own state and not for the request; the statuses that OpenAI's own client repeats.
MAY_PASS = {408, 409, 429, *range(500, 600)}
REFUSED_KEY = {401, 403}
REFUSED_INPUT = {400, 413, 422}
CODE = re.compile(r"[a-z_]{1,40}")  # such as invalid_api_key; nothing that could be a key


def make_client() -> httpx2.AsyncClient:
    """A client for the present settings. It repeats nothing and knows no time limit: we do.

    Its own time limit would be for each read, so a byte now and then would satisfy it.
    """
    return httpx2.AsyncClient(
        headers={"Authorization": f"Bearer {settings.OPENAI_API_KEY}"},
        timeout=None,
        limits=httpx2.Limits(max_connections=None),
    )


async def embed_calls(client: httpx2.AsyncClient, calls: Iterable[list[str]]) -> list[Vector]:
    """The vectors of all texts, in their order: one API call a list, one after another.

    Each has EMBEDDING_TIMEOUT seconds, its retries included; then its connection is closed. The first EmbeddingError
    ends it all.
    """
    vectors: list[Vector] = []
    for texts in calls:
        vectors += await _embed_in_time(client, texts)
    return vectors


async def _embed_in_time(client: httpx2.AsyncClient, texts: list[str]) -> list[Vector]:
    failures: list[Unavailable] = []
    try:
        async with asyncio.timeout(settings.EMBEDDING_TIMEOUT_S) as deadline:
            return await _embed(client, texts, failures, ends_at=deadline.when() or 0.0)
    except TimeoutError:
        before = f"; before: {failures[-1]}" if failures else ""
        raise Unavailable(f"no answer within {settings.EMBEDDING_TIMEOUT_S:g} s{before}") from None


async def _embed(
    client: httpx2.AsyncClient, texts: list[str], failures: list[Unavailable], *, ends_at: float
) -> list[Vector]:
    """Ask until there is an answer; give up at once where the pause would outlast ``ends_at``, in the loop's time."""
    most_s = FIRST_PAUSE_S
    while True:
        try:
            return await _ask(client, texts)
        except Unavailable as failure:
            failures.append(failure)
            pause_s = max(random.uniform(0, most_s), failure.retry_after_s or 0)  # noqa: S311 - no secret
            if asyncio.get_running_loop().time() + pause_s >= ends_at:
                raise
        await asyncio.sleep(pause_s)
        most_s = min(2 * most_s, LONGEST_PAUSE_S)


async def _ask(client: httpx2.AsyncClient, texts: list[str]) -> list[Vector]:
    asked = {
        "model": settings.EMBEDDING_MODEL, "input": texts, "dimensions": DIMENSIONS, "encoding_format": "base64"
    }  # fmt: skip
    try:
        response = await client.post(f"{settings.OPENAI_BASE_URL}/embeddings", json=asked)
    except (httpx2.HTTPError, httpx2.InvalidURL) as error:
        raise Unavailable(f"the service cannot be reached ({type(error).__name__})") from error
    if not response.is_success:
        raise _refusal(response)
    try:
        return vectors_in(response.content, count=len(texts))
    except ValueError as error:
        raise Unusable(f"the service's answer was not usable: {error}") from error


def _refusal(response: httpx2.Response) -> EmbeddingError:
    """What the refusal means. Its words are left out: they can quote the key or a text."""
    status, said = response.status_code, f"status {response.status_code}"
    code, kind = error_in(response.content)
    if CODE.fullmatch(code):
        said += f" ({code})"
    after_s = retry_after_s(response.headers)
    if status == 429 and "insufficient_quota" in (code, kind):
        return QuotaExceeded(f"the account's quota is used up: {said}", retry_after_s=after_s)
    if status in REFUSED_KEY:
        return KeyRefused(f"the service refused the key: {said}")
    if status in REFUSED_INPUT:
        return InputRefused(f"the service refused the text: {said}")
    if status in MAY_PASS:
        return Unavailable(f"the service failed: {said}", retry_after_s=after_s)
    return EmbeddingError(f"the service refused: {said}")
