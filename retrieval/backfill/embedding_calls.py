"""Get vectors for texts whatever the service does: wait where it is away, halve where it refuses one of them."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from itertools import count

from retrieval.embeddings import embedding_service
from retrieval.embeddings.embedding_service import (
    CircuitOpen,
    EmbeddingError,
    InputRefused,
    Unavailable,
    Unusable,
    Vector,
)

TRIES = 6  # in a row without an answer, then it is left to the operator
FIRST_PAUSE_S = 1.0  # doubled with each try, unless the service names a longer time
LONGEST_PAUSE_S = 600.0  # a service that wants to be left alone for longer ends the run
HARMLESS = "Hello"  # one token; where this is refused as well, it is not the texts that are refused

MOST_UNUSABLE = (
    2  # answers to the same texts; then it is taken for the texts' fault and they are halved
)
Refusal = InputRefused | Unusable
Answer = Vector | Refusal


def begin(texts: Sequence[str]) -> Future[list[Vector]] | None:
    """Begin a call; None where none is made at present: ``Service.answers`` waits until it can be."""
    try:
        return embedding_service.begin(texts)
    except CircuitOpen:
        return None


class Service:
    """The embedding service as a long run meets it.

    ``wait`` waits so many seconds or raises what ends the run; ``tell`` is given a line for the operator before.
    """

    def __init__(self, wait: Callable[[float], None], tell: Callable[[str], object]) -> None:
        self._wait = wait
        self._tell = tell
        self._takes_texts = False

    def answers(self, texts: Sequence[str], call: Future[list[Vector]] | None) -> Iterator[Answer]:
        """A vector for each text, or its refusal, in order, as they come; ``call`` is under way for all of them.

        Those refused are found by halving: 2 log2(n) calls for one among n. Raises EmbeddingError where the service
        refuses everything, or gives nothing for TRIES tries; what has come before that is paid for.
        """
        self._takes_texts = False
        yield from self._halving(texts, call)

    def _halving(
        self, texts: Sequence[str], call: Future[list[Vector]] | None = None
    ) -> Iterator[Answer]:
        got = self._ask(texts, call)
        if not isinstance(got, Refusal):
            self._takes_texts = True
            yield from got
        elif len(texts) == 1:
            self._prove(got)
            yield got
        else:
            half = len(texts) // 2
            yield from self._halving(texts[:half])
            yield from self._halving(texts[half:])

    def _ask(
        self, texts: Sequence[str], call: Future[list[Vector]] | None = None
    ) -> list[Vector] | Refusal:
        """Again and again while the service is away."""
        unusable = 0
        for tries in count(1):
            try:
                return (call or embedding_service.begin(texts)).result()
            except InputRefused as refusal:
                return refusal
            except (Unavailable, CircuitOpen) as failure:
                unusable += isinstance(failure, Unusable)
                if isinstance(failure, Unusable) and unusable == MOST_UNUSABLE:
                    return failure
                pause_s = max(failure.retry_after_s or 0, FIRST_PAUSE_S * 2 ** (tries - 1))
                if tries == TRIES or pause_s > LONGEST_PAUSE_S:
                    raise
                self._tell(f"{failure}; trying again in {pause_s:.0f} s")
            call = None
            self._wait(pause_s)
        raise AssertionError  # count() does not end

    def _prove(self, refusal: Refusal) -> None:
        """A setting that the service does not take looks like a text that it does not take, for every row."""
        if not self._takes_texts and isinstance(self._ask([HARMLESS]), Refusal):
            raise EmbeddingError(f"it takes no text at all with these settings; {refusal}")
        self._takes_texts = True
