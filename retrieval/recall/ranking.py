"""Orders the rows of a recall: arithmetic on arrays, without a database.

    score = words + meaning of the message + meaning of its neighbours + length + kind of message

Each part is explained at its constants, which were fitted on two sets of conversations: what each
brings is in docs/decisions/0017-recall-order.md. An example with numbers: docs/how-memory-works.md.
..._ALONE is used if no row has a similarity. Hidden rows count as neighbours and in means.
"""

from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from retrieval.recall.rows import Bools, Floats, Rows, Terms

T = TypeVar("T", bound=np.generic)
# Words. The sum of the weights of those words of the question that a message or a neighbour has,
# divided by the weights of all. A word counts by the nearest message that has it: in full in the
# message itself, less in one that is 1, 2, 3 or 4 messages away.
WORDS = 1.4
NEARNESS = (1.0, 0.7, 0.5, 0.35, 0.2)
# A frequent word (not in Terms.spreads) does not count for neighbours, but double in the message.
FREQUENT = 2.0
# Meaning. (cosine to the question - mean of all rows) / their standard deviation. Models differ in
# how far their cosines spread, the bundled ones from 0.02 to 0.09: divided, it does not matter.
MEANING = 0.17
# The standard deviation of fewer cosines says little: then the difference to the mean counts as is.
MIN_SPREAD_ROWS = 20
# Neighbours say what a terse message is about: most of all the other half of its turn, the answer
# to it or what it answers; then the message on its other side, and the two beyond.
OTHER_HALF, OTHER_SIDE, BEYOND = 0.6, 0.2, 0.2
# Length. ln(characters), limited to SHORT and LONG, less the mean of the user's or of the
# assistant's messages: what is long for its author says more. Without "less the mean", answers
# would come first, because they are the longest.
LENGTH, LENGTH_ALONE = 0.2, 0.08
SHORT, LONG = 20, 300  # characters
# What users ask for is mostly what they said themselves, not what was answered.
BY_USER, BY_USER_ALONE = 0.2, 0.1
QUESTION, QUESTION_ALONE = -0.15, -0.1  # a question is seldom what a question looks for
AFTER_QUESTION = 0.1  # the message after a question often is what a question looks for
WORDS_WITHIN = 3  # messages, for RAG_MIN_SIMILARITY: docs/promises.md, "Settings"
# Similarities are estimates at first. Every message is compared exactly whose score could be among
# the wanted ones if its estimate were so many standard deviations off: never fewer than
# wanted + SPARE, never more than MAX_EXACT (or wanted + SPARE if that is more).
DEVIATIONS = 3
SPARE, MAX_EXACT = 3, 60
# The order looks at more than meaning, so the nearest message can come late. Of a list of more than
# BEST messages, up to NEAREST of the last places are for the nearest by meaning alone. They are
# chosen from the NEAREST_EXACT nearest by estimates, which are among those compared exactly.
NEAREST, NEAREST_EXACT, BEST = 8, 24, 40


@dataclass(frozen=True)
class Ranking:
    """Related messages as arrays, best first; equally good: the user's own, then the higher ref.

    ``scores`` are higher for better messages and have no fixed scale. A score is its ``bases`` and
    ``similarity_weight`` times what the similarity is above ``mean_similarity``. ``shares_words``:
    whether the message, or one at most WORDS_WITHIN away, has a word of the question.
    ``companions``: the ref of the answer to a message of the user's, or of the message that an
    answer follows; 0 if there is none, or if it may not be shown.
    """

    refs: NDArray[np.int64]
    scores: Floats
    bases: Floats
    similarity: Floats
    shares_words: Bools
    companions: NDArray[np.int64]
    mean_similarity: float
    similarity_weight: float
    error: float  # of the estimated similarities, a standard deviation
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
    def min_similarities(self) -> Floats:
        """What each message needs: -1 (any) if it shares a word; NaN without a similarity."""
        required = np.where(self.shares_words, -1.0, self.min_similarity)
        return np.where(np.isnan(self.similarity), np.nan, required)

    def related(self, min_similarity: float) -> "Ranking":
        """Without messages that share no word and are less similar, by DEVIATIONS, than that."""
        lowest = min_similarity - DEVIATIONS * self.error
        is_unrelated = ~self.shares_words & (self.similarity < lowest)
        return replace(self[~is_unrelated], min_similarity=min_similarity)

    def contenders(self, limit: int) -> Bools:
        """Which may be among the ``limit`` to return, by their exact scores or similarities."""
        chosen = np.zeros(len(self), bool)
        if count_nearest(limit):
            by_meaning = np.argsort(-np.nan_to_num(self.similarity, nan=-1.0), kind="stable")
            chosen[by_meaning[:NEAREST_EXACT]] = True
        others = np.flatnonzero(~chosen)
        chosen[others[: self._count_contenders(limit) - chosen.sum()]] = True
        return chosen

    def _count_contenders(self, limit: int) -> int:
        if len(self) <= limit + SPARE:
            return len(self)
        lowest = self.scores[limit - 1] - DEVIATIONS * self.similarity_weight * self.error
        near = int((self.scores >= lowest).sum())
        return min(max(near, limit + SPARE), max(MAX_EXACT, limit + SPARE))


def count_nearest(limit: int) -> int:
    """How many of ``limit`` places are for the nearest messages."""
    return max(0, min(NEAREST, limit - BEST))


def rank(rows: Rows) -> Ranking:
    """The shown rows that have a similarity, or a word of the question (``_words`` above 0)."""
    has_similarity = rows.has_similarity
    by_meaning = bool(has_similarity.any())
    mean, weight = _mean_and_weight(rows.similarity[has_similarity], rows.error)
    meaning = np.where(has_similarity, weight * (rows.similarity - mean), 0.0)
    words = _words(rows.terms, rows.follows)
    bases = WORDS * words + _of_neighbours(meaning, rows)
    bases += _shape(rows, by_meaning=by_meaning)
    scores = bases + meaning
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
        weight,
        rows.error,
        by_meaning,
    )[places[order]]


def _mean_and_weight(similarity: Floats, error: float) -> tuple[float, float]:
    """The mean of the similarities, and MEANING divided by their standard deviation.

    The standard deviation is that of the true similarities: without ``error``, of the estimates.
    """
    if len(similarity) < MIN_SPREAD_ROWS:
        return (float(similarity.mean()) if len(similarity) else 0.0), 1.0
    variance = float(similarity.var())
    # The estimates spread by their error too; of a variance that is all error, a tenth is left.
    deviation = max(variance - error**2, 0.1 * variance) ** 0.5
    return float(similarity.mean()), (MEANING / deviation if deviation else 0.0)


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
    """The weight of the question's terms that a message or its neighbours have, over that of all.

    From 0 to 1, with frequent terms to FREQUENT. Only terms that the user has used have a weight.
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


def _of_neighbours(meaning: Floats, rows: Rows) -> Floats:
    """What the meaning of the neighbours adds to that of a message."""
    before, after = _before(meaning, rows.follows), _after(meaning, rows.follows)
    beyond = _before(before, rows.follows) + _after(after, rows.follows)
    is_before, is_after = _other_half(rows)
    before *= np.where(is_before, OTHER_HALF, OTHER_SIDE)
    after *= np.where(is_after, OTHER_HALF, OTHER_SIDE)
    added: Floats = before + after + BEYOND * beyond
    return added


def _other_half(rows: Rows) -> tuple[Bools, Bools]:
    """Whether the message before is the other half of the turn, and whether the one after is."""
    is_before = ~rows.by_user & _before(rows.by_user, rows.follows)
    is_after = rows.by_user & _after(~rows.by_user, rows.follows)
    return is_before, is_after


def _shape(rows: Rows, *, by_meaning: bool) -> Floats:
    """What length, author, being a question and following one add."""
    length = np.log(np.clip(rows.chars, SHORT, LONG))
    for of_author in (rows.by_user, ~rows.by_user):
        if of_author.any():
            length[of_author] -= length[of_author].mean()
    shape: Floats = (LENGTH if by_meaning else LENGTH_ALONE) * length
    shape += (BY_USER if by_meaning else BY_USER_ALONE) * rows.by_user
    shape += (QUESTION if by_meaning else QUESTION_ALONE) * rows.is_question
    shape += AFTER_QUESTION * _before(rows.is_question, rows.follows)
    return shape


def _companions(rows: Rows) -> NDArray[np.int64]:
    """The ref of the answer after a user's message, or of the message before an answer; else 0."""
    of_user = rows.by_user & rows.shown
    of_assistant = ~rows.by_user & rows.shown
    answers = _after(rows.refs * of_assistant, rows.follows)
    questions = _before(rows.refs * of_user, rows.follows)
    return np.where(rows.by_user, answers, questions)
