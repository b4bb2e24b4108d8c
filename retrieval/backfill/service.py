"""Get vectors for texts whatever the service does: wait where it is away, halve where it refuses one of them."""

from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count

from retrieval import embeddings
from retrieval.embeddings import EmbeddingError, InputRefused, Paused, Unavailable, Vector

TRIES = 6  # in a row without an answer, then it is left to the operator
FIRST_PAUSE_S = 1.0  # doubled with each try, unless the service names a longer time
LONGEST_PAUSE_S = 600.0  # a service that wants to be left alone for longer ends the run
HARMLESS = "Good morning."  # where this is refused as well, it is not the texts that are refused

Answer = Vector | InputRefused


@dataclass
class Service:
    """The embedding service as a long run meets it; ``wait`` waits so many seconds, or raises what ends the run."""

    wait: Callable[[float], None]
    takes_text: bool = False  # it has taken one in this run

    def begin(self, texts: Sequence[str]) -> Future[list[Vector]] | None:
        """Begin a call; None where none is made at present: ``finish`` waits until it can be."""
        try:
            return embeddings.begin(texts)
        except Paused:
            return None

    def finish(self, texts: Sequence[str], call: Future[list[Vector]] | None = None) -> list[Answer]:
        """A vector for each text, or its refusal, in order; ``call`` is one that is under way for them.

        Those refused are found by halving: 2 log2(n) calls for one among n. Raises EmbeddingError where the service
        refuses everything, or gives nothing for TRIES tries.
        """
        try:
            vectors = self._patiently(texts, call)
        except InputRefused as refusal:
            if len(texts) == 1:
                self._prove(refusal)
                return [refusal]
        else:
            self.takes_text = True
            return list(vectors)
        half = len(texts) // 2
        return self.finish(texts[:half]) + self.finish(texts[half:])

    def _patiently(self, texts: Sequence[str], call: Future[list[Vector]] | None) -> list[Vector]:
        for tries in count(1):
            try:
                return (call or embeddings.begin(texts)).result()
            except (Unavailable, Paused) as failure:
                pause_s = max(failure.retry_after_s or 0, FIRST_PAUSE_S * 2 ** (tries - 1))
                if tries == TRIES or pause_s > LONGEST_PAUSE_S:
                    raise
            call = None
            self.wait(pause_s)
        raise AssertionError  # count() does not end

    def _prove(self, refusal: InputRefused) -> None:
        """A setting that the service does not take looks like a text that it does not take, for every row."""
        if self.takes_text:
            return
        try:
            self._patiently([HARMLESS], None)
        except InputRefused:
            raise EmbeddingError(f"it takes no text at all with these settings; {refusal}") from None
        self.takes_text = True
