"""Orders the rows of a recall: arithmetic on arrays, without a database.

docs/how-memory-works.md has a worked example. All constants were fitted on conversations of 400 to
700 messages: docs/decisions/0010-hybrid-recall.md.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.recall.rows import Bools, Floats, Rows, Terms

T = TypeVar("T", bound=np.generic)
# Weight of a word by the distance of the message that has it: 0, 1, 2, 3 or 4 messages away.
NEARNESS = (1.0, 0.7, 0.5, 0.35, 0.2)
# Weight of a frequent word (one that does not spread): counted only in the message itself, doubled
# because it does not spread.
FREQUENT = 2.0
WORDS = 1.4  # weight of words in the score
MEANING = 1.0  # weight of the similarity less its mean
NEIGHBOURS = (0.4, 0.2)  # weight of the similarity of the messages 1 and 2 away
# Factor of ln(characters), which are limited to SHORT and LONG; less if words alone decide.
LENGTH, LENGTH_ALONE = 0.16, 0.08
SHORT, LONG = 20, 300  # characters
QUESTION = -0.1  # a question is seldom what a question looks for
AFTER_QUESTION = 0.1  # what follows a question often is
WORDS_WITHIN = 3  # messages, for RAG_MIN_SIMILARITY: docs/promises.md, "Settings"
# Of a place whose score is an estimate, all within so many standard deviations are compared
# exactly; so many more than are wanted, and so many at most unless more are wanted.
DEVIATIONS = 3
SPARE, MAX_EXACT = 3, 60


@dataclass(frozen=True)
class Ranking:
    """Related messages as arrays, best first; of equals the user's own, then the higher ref.

    ``scores`` are higher for better messages and have no fixed scale. A score is its ``bases`` and
    MEANING times what the similarity is above ``mean_similarity``. ``shares_words``: whether the
    message, or one within WORDS_WITHIN of it, has a word of the question. ``companions``: the
    answer to a message of the user's, or the message that an answer follows; 0 if that may not be
    shown.
    """

    refs: NDArray[np.int64]
    scores: Floats
    bases: Floats
    similarity: Floats
    shares_words: Bools
    companions: NDArray[np.int64]
    mean_similarity: float
    error: float  # standard deviation of the similarities
    by_meaning: bool  # whether any row has a similarity
    min_similarity: float = -1.0  # required of messages that share no word

    def __len__(self) -> int:
        return len(self.refs)

    def __getitem__(self, places: Any) -> "Ranking":
        """The ranking of these places: a slice, or an array of numbers or booleans."""
        return replace(
            self,
            refs=self.refs[places],
            scores=self.scores[places],
            bases=self.bases[places],
            similarity=self.similarity[places],
            shares_words=self.shares_words[places],
            companions=self.companions[places],
        )

    @property
    def needs_similarity(self) -> Bools:
        """Which of them are related by meaning alone."""
        return ~self.shares_words & ~np.isnan(self.similarity)

    def related(self, min_similarity: float) -> "Ranking":
        """Without messages that share no word and are surely less similar than that."""
        lowest = min_similarity - DEVIATIONS * self.error
        is_unrelated = ~self.shares_words & (self.similarity < lowest)
        return replace(self[~is_unrelated], min_similarity=min_similarity)

    def count_contenders(self, limit: int) -> int:
        """How many of the first may be among the first ``limit`` by their exact scores."""
        if len(self) <= limit + SPARE:
            return len(self)
        lowest = self.scores[limit - 1] - DEVIATIONS * MEANING * self.error
        near = int((self.scores >= lowest).sum())
        return min(max(near, limit + SPARE), max(MAX_EXACT, limit + SPARE), len(self))


def rank(rows: Rows) -> Ranking:
    """The shown rows that have a word of the question near them, or a similarity."""
    has_similarity = rows.has_similarity
    by_meaning = bool(has_similarity.any())
    mean = float(rows.similarity[has_similarity].mean()) if by_meaning else 0.0
    above_mean = np.where(has_similarity, rows.similarity - mean, 0.0)
    words = _words(rows.terms, rows.follows)
    bases = WORDS * words + MEANING * _of_neighbours(above_mean, rows.follows)
    bases += _shape(rows, by_meaning=by_meaning)
    scores = bases + MEANING * above_mean
    places = np.flatnonzero(rows.shown & ((words > 0) | has_similarity))
    order = np.lexsort((rows.refs[places], rows.by_user[places], scores[places]))[::-1]
    return Ranking(
        rows.refs,
        scores,
        bases,
        rows.similarity,
        _shares_words(rows),
        _companions(rows),
        mean,
        rows.error,
        by_meaning,
    )[places[order]]


def _before(values: NDArray[T], follows: Bools) -> NDArray[T]:
    """The value of the message before, 0 where there is none; along the last axis."""
    shifted = np.zeros_like(values)
    np.multiply(values[..., :-1], follows[1:], out=shifted[..., 1:])
    return shifted


def _after(values: NDArray[T], follows: Bools) -> NDArray[T]:
    """The value of the message after, 0 where there is none; along the last axis."""
    shifted = np.zeros_like(values)
    np.multiply(values[..., 1:], follows[1:], out=shifted[..., :-1])
    return shifted


def _words(terms: Terms, follows: Bools) -> Floats:
    """The share, by weight, of the question's terms that a message or its neighbours have.

    A term weighs ln(1 + n/df): n messages, df of them with the term.
    """
    words: Floats = np.zeros(len(follows))
    weights = terms.weights
    total = weights.sum()
    if not total:
        return words
    before = after = spreading = terms.hits & terms.spreads[:, None]
    near = np.where(spreading, NEARNESS[0], 0.0)
    for nearness in NEARNESS[1:]:
        before, after = _before(before, follows), _after(after, follows)
        near = np.maximum(near, nearness * (before | after))
    near += FREQUENT * (terms.hits & ~terms.spreads[:, None])
    # Summed term by term: equal messages have equal scores, to the last bit.
    for weight, values in zip(weights, near, strict=True):
        words += weight * values
    words /= total
    return words


def _shares_words(rows: Rows) -> Bools:
    shares: Bools = np.any(rows.terms.hits, axis=0, keepdims=False)
    before = after = shares
    for _ in range(WORDS_WITHIN):
        before, after = _before(before, rows.follows), _after(after, rows.follows)
        shares = shares | before | after
    return shares


def _of_neighbours(above_mean: Floats, follows: Bools) -> Floats:
    """What the similarities of the neighbours add to the meaning of a message."""
    added = np.zeros_like(above_mean)
    before = after = above_mean
    for weight in NEIGHBOURS:
        before, after = _before(before, follows), _after(after, follows)
        added += weight * (before + after)
    return added


def _shape(rows: Rows, *, by_meaning: bool) -> Floats:
    """What length, being a question and following one add."""
    length = LENGTH if by_meaning else LENGTH_ALONE
    after_question = _before(rows.is_question, rows.follows)
    shape: Floats = length * np.log(np.clip(rows.chars, SHORT, LONG))
    shape += QUESTION * rows.is_question
    shape += AFTER_QUESTION * after_question
    return shape


def _companions(rows: Rows) -> NDArray[np.int64]:
    """The ref of the answer after a user's message, or of the message before an answer; else 0."""
    of_user = rows.by_user & rows.shown
    of_assistant = ~rows.by_user & rows.shown
    answers = _after(rows.refs * of_assistant, rows.follows)
    questions = _before(rows.refs * of_user, rows.follows)
    return np.where(rows.by_user, answers, questions)
