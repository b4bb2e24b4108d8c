"""What a recall ranks, as arrays: an element for each message."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Bools = NDArray[np.bool_]
Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Terms:
    """The question's terms that the user's messages have, numbered from 0.

    ``total``: how many messages the user has, 10,000 at most; ``frequencies``: how many of the
    shown messages have each term; ``spreads``: whether it is rare enough to count for the
    neighbours of a message that has it, too; ``hits``: which row has it, shape (terms, rows).
    """

    total: int
    frequencies: NDArray[np.int64]
    spreads: Bools
    hits: Bools

    @property
    def weights(self) -> Floats:
        """ln(1 + total / frequency): the rarer a term, the more it says; 0 if no message has it."""
        weights: Floats = np.log1p(self.total / np.maximum(self.frequencies, 1))
        return weights * (self.frequencies > 0)


@dataclass(frozen=True)
class Rows:
    """Messages in the order of their conversations and times.

    ``follows``: whether a row is the message after the row before it, in the same conversation;
    ``shown``: whether the scope allows to return it; ``similarity``: the cosine to the question,
    NaN without an embedding, known but for ``error``, a standard deviation.
    """

    refs: NDArray[np.int64]
    follows: Bools
    shown: Bools
    is_question: Bools
    by_user: Bools
    chars: NDArray[np.int64]
    similarity: Floats
    error: float
    terms: Terms

    @property
    def has_similarity(self) -> Bools:
        return ~np.isnan(self.similarity)
