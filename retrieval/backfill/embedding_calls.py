"""Embed many texts: wait while the service is away, find the texts that it fails on.

A call that fails may have failed because of one of its texts, or because the service is away. One
harmless text tells which: only if that is embedded, the texts are asked for again, and then halved
until the bad ones are alone. So a service that fails on everything is asked at most six times.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeAlias, TypeVar

from retrieval.backfill import token_bucket
from retrieval.backfill.limits import Limits
from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.batching import truncate
from retrieval.embeddings.errors import (
    EmbeddingError,
    InputRefused,
    InvalidResponse,
    RateLimited,
    ServiceUnavailable,
)
from retrieval.vectors import Vector

# While the service is away. After them the run ends: 15 s after the first failure, or at most 30 s
# if each call takes EMBEDDING_TIMEOUT. docs/promises.md, "Commands"
PAUSES_S = (3.0, 12.0)
MAX_AWAY_S = 20.0
# While the service limits the rate, or names a time: tries in a row, and the first pause, which is
# doubled with each try.
TRIES = 6
FIRST_PAUSE_S = 1.0
MAX_PAUSE_S = 600.0  # if the service asks for a longer pause, the run ends
PROBE_TOKENS = 1
PROBE_TEXT = "Hello"  # PROBE_TOKENS; if this fails too, the reason is not the texts
NO_ROOM = "{}; --max-cost has no room to try again: raise it"
Refusal = InputRefused | ServiceUnavailable
Answer = Vector | Refusal
Text: TypeAlias = tuple[int | None, str]  # (user id, content)
T = TypeVar("T", bound=Text)


def check_key() -> None:
    """Embed one word: raises EmbeddingError if the service refuses the key, the account or model.

    One call. A service that is away, and one that refuses the text, is no reason not to begin.
    """
    try:
        start_call([(None, PROBE_TEXT)]).result()
    except (ServiceUnavailable, InputRefused):
        pass
    finally:
        usage.flush()


def start_call(texts: Sequence[Text]) -> Future[list[Vector]]:
    """Start one call, which is not repeated."""
    users, contents = zip(*texts, strict=True) if texts else ((), ())
    return embedding_service.submit(contents, users=users, retries=False)


class OverBudget(Exception):
    """One more call could cost more than the run may spend."""


class RetryingService:
    """The embedding service, called until it answers, within EMBEDDING_RATE_TOKENS_PER_MIN.

    ``notify`` is given a line for the operator before each wait.
    """

    def __init__(self, limits: Limits, notify: Callable[[str], object]) -> None:
        self._limits = limits
        self._notify = notify
        self._works = False  # it has embedded something since this batch was asked for
        self._failure: EmbeddingError | None = None  # the latest
        self._reserved: set[Text] = set()  # texts whose next call is within the budget

    def start_call(self, texts: Sequence[Text]) -> Future[list[Vector]]:
        """Start one call, which is not repeated, once the rate of all processes allows it."""
        if token_bucket.is_limited() and texts:
            tokens = sum(truncate(content).tokens for _, content in texts)
            token_bucket.take(tokens, wait=self._limits.wait)
        return start_call(texts)

    def _start_again(self, texts: Sequence[Text]) -> Future[list[Vector]]:
        """``start_call`` once more, within the budget. Raises OverBudget."""
        unpaid = [truncate(content).tokens for _, content in set(texts) - self._reserved]
        if not self._limits.spend(sum(unpaid)):
            raise OverBudget
        self._reserved.update(texts)
        return self.start_call(texts)

    def answers(
        self, texts: Sequence[T], call: Future[list[Vector]] | None
    ) -> Iterator[tuple[T, Answer]]:
        """Each text with its vector or a refusal; ``call`` already runs, and is paid for.

        Bad texts are found by halving: 2 log2(n) calls for one of n texts. What the budget has no
        room for is left out. Raises EmbeddingError if the service fails on everything, or if the
        budget ends before the first answer; answers that came were yielded, for the caller to
        store.
        """
        self._works = answered = False
        self._reserved = set(texts)
        try:
            for text, answer in self._ask_and_halve(texts, call, asks=2):
                answered = True
                yield text, answer
        except OverBudget:
            if not answered:
                raise EmbeddingError(NO_ROOM.format(self._failure)) from None

    def _ask_and_halve(
        self, texts: Sequence[T], call: Future[list[Vector]] | None = None, *, asks: int = 1
    ) -> Iterator[tuple[T, Answer]]:
        """``asks``: how often a call may fail although the service works, before it is halved."""
        answer = self._ask(texts, call, asks=2 if len(texts) == 1 else asks)
        if not isinstance(answer, Refusal):
            yield from zip(texts, answer, strict=True)
        elif isinstance(answer, InvalidResponse) and answer.usable:
            yield from ((texts[place], vector) for place, vector in answer.usable.items())
            rest = [text for place, text in enumerate(texts) if place not in answer.usable]
            yield from self._ask_and_halve(rest)
        elif len(texts) == 1:
            yield texts[0], answer
        else:
            half = len(texts) // 2
            yield from self._ask_and_halve(texts[:half])
            yield from self._ask_and_halve(texts[half:])

    def _ask(
        self, texts: Sequence[Text], call: Future[list[Vector]] | None, *, asks: int
    ) -> list[Vector] | Refusal:
        """The vectors, or why the service fails on these texts while it works for others."""
        failures = 0
        while True:
            try:
                return self._call(texts, call)
            except InputRefused as refusal:
                if not self._works:
                    self._wait_until_it_works()
                return refusal
            except ServiceUnavailable as failure:
                if isinstance(failure, RateLimited) or failure.retry_after_s is not None:
                    raise
                if isinstance(failure, InvalidResponse) and failure.usable:
                    self._works = True
                    return failure
                failures += 1
                if asks == 1 or (not self._wait_until_it_works() and failures >= asks):
                    return failure
            call = None

    def _call(
        self, texts: Sequence[Text], call: Future[list[Vector]] | None = None
    ) -> list[Vector]:
        """One call, repeated while the service limits the rate or names a time to wait."""
        for tries in count(1):
            try:
                vectors = (call or self._start_again(texts)).result()
                self._works = True
                self._reserved.difference_update(texts)
                return vectors
            except InputRefused as refusal:
                self._failure = refusal
                raise
            except ServiceUnavailable as failure:
                self._failure = failure
                if failure.may_be_billed:
                    self._reserved.difference_update(texts)
                pause_s = max(failure.retry_after_s or 0, FIRST_PAUSE_S * 2 ** (tries - 1))
                is_asked = isinstance(failure, RateLimited) or failure.retry_after_s is not None
                if not is_asked or tries == TRIES or pause_s > MAX_PAUSE_S:
                    raise
                self._pause(failure, pause_s)
            call = None
        raise AssertionError  # count() does not end

    def _wait_until_it_works(self) -> bool:
        """Ask for the harmless text until it is embedded; whether the service was away.

        Raises EmbeddingError if it refuses that too (a setting is wrong), or stays away.
        """
        began = time.monotonic()
        for tries, pause_s in enumerate((*PAUSES_S, None)):
            asked_at = time.monotonic()
            try:
                self._call([(None, PROBE_TEXT)])
            except InputRefused as refusal:
                reason = f"it takes no text at all with these settings; {refusal}"
                raise EmbeddingError(reason) from None
            except ServiceUnavailable as failure:
                now = time.monotonic()
                next_end_s = now - began + (pause_s or 0) + now - asked_at
                if pause_s is None or next_end_s > MAX_AWAY_S:
                    raise
                self._pause(failure, pause_s)
            else:
                return tries > 0
        raise AssertionError  # the last try returns or raises

    def _pause(self, failure: ServiceUnavailable, pause_s: float) -> None:
        self._notify(f"{failure}; trying again in {pause_s:.0f} s")
        self._limits.wait(pause_s)
