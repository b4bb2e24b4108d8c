"""Embed many texts: wait while the service is away, halve a batch that it refuses."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count
from typing import TypeAlias

from retrieval.embeddings import embedding_service, usage
from retrieval.embeddings.errors import (
    CircuitOpen,
    EmbeddingError,
    InputRefused,
    InvalidResponse,
    ServiceUnavailable,
)
from retrieval.vectors import Vector

TRIES = 6  # in a row without an answer; then the run ends
FIRST_PAUSE_S = 1.0  # doubled with each try, unless the service names a longer time
MAX_PAUSE_S = 600.0  # if the service asks for a longer pause, the run ends
PROBE_TOKENS = 1
PROBE_TEXT = "Hello"  # PROBE_TOKENS; if this is refused too, the reason is not the texts
MAX_INVALID_RESPONSES = 2  # to the same texts; then the texts are the likely reason: halve them
Refusal = InputRefused | InvalidResponse
Answer = Vector | Refusal
Text: TypeAlias = tuple[int | None, str]  # (user id, content)


def check_key() -> None:
    """Embed one word: raises EmbeddingError if the service refuses the key, the account or model.

    One call. A service that is away, and one that refuses the text, is no reason not to begin.
    """
    try:
        embedding_service.submit([PROBE_TEXT]).result()
    except (ServiceUnavailable, CircuitOpen, InputRefused):
        pass
    finally:
        usage.flush()


def start_call(texts: Sequence[Text]) -> Future[list[Vector]] | None:
    """Start a call; None while the circuit breaker is open: ``answers`` then waits and calls."""
    try:
        return _submit(texts)
    except CircuitOpen:
        return None


def _submit(texts: Sequence[Text]) -> Future[list[Vector]]:
    users, contents = zip(*texts, strict=True) if texts else ((), ())
    return embedding_service.submit(contents, users=users)


class RetryingService:
    """The embedding service, called until it answers.

    ``wait`` sleeps for a number of seconds, or raises to end the run. ``notify`` is given a line
    for the operator before each wait.
    """

    def __init__(self, wait: Callable[[float], None], notify: Callable[[str], object]) -> None:
        self._wait = wait
        self._notify = notify
        self._accepts_texts = False

    def answers(self, texts: Sequence[Text], call: Future[list[Vector]] | None) -> Iterator[Answer]:
        """A vector or a refusal for each text, in order; ``call`` already runs for all of them.

        Refused texts are found by halving: 2 log2(n) calls for one of n texts. Raises
        EmbeddingError if the service refuses everything or fails TRIES times in a row; answers
        before that were yielded, so the caller can store them.
        """
        self._accepts_texts = False
        yield from self._halve(texts, call)

    def _halve(
        self, texts: Sequence[Text], call: Future[list[Vector]] | None = None
    ) -> Iterator[Answer]:
        answer = self._ask(texts, call)
        if not isinstance(answer, Refusal):
            self._accepts_texts = True
            yield from answer
        elif len(texts) == 1:
            self._check_service_works(answer)
            yield answer
        else:
            half = len(texts) // 2
            yield from self._halve(texts[:half])
            yield from self._halve(texts[half:])

    def _ask(
        self, texts: Sequence[Text], call: Future[list[Vector]] | None = None
    ) -> list[Vector] | Refusal:
        """One call, repeated while the service is away or its answer is unusable."""
        invalid_responses = 0
        for tries in count(1):
            try:
                return (call or _submit(texts)).result()
            except InputRefused as refusal:
                return refusal
            except (ServiceUnavailable, CircuitOpen) as failure:
                if isinstance(failure, InvalidResponse):
                    invalid_responses += 1
                    if invalid_responses == MAX_INVALID_RESPONSES:
                        return failure
                pause_s = max(failure.retry_after_s or 0, FIRST_PAUSE_S * 2 ** (tries - 1))
                if tries == TRIES or pause_s > MAX_PAUSE_S:
                    raise
                self._notify(f"{failure}; trying again in {pause_s:.0f} s")
            call = None
            self._wait(pause_s)
        raise AssertionError  # count() does not end

    def _check_service_works(self, refusal: Refusal) -> None:
        """Raises EmbeddingError if the service refuses any text: a setting is wrong, no row is."""
        if not self._accepts_texts and isinstance(self._ask([(None, PROBE_TEXT)]), Refusal):
            raise EmbeddingError(f"it takes no text at all with these settings; {refusal}")
        self._accepts_texts = True
