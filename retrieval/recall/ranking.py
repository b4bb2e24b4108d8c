"""Order the candidates of a recall: the arithmetic of docs/decisions/0010-hybrid-recall.md, without a database."""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeGuard

# All constants were fitted on conversations of 400 to 700 messages: docs/decisions/0010-hybrid-recall.md.
NEARNESS = (1.0, 0.7, 0.5, 0.35, 0.2)  # what a word counts that stands 0, 1, 2, 3, 4 turns away
COMMON = 2.0  # what a word counts that most messages have: its rarity is small already, and it does not spread
WORDS = 1.4  # the share of words in the score, that of meaning being 1
NEIGHBOURS = (0.4, 0.2)  # what the similarity of the turns 1 and 2 away adds
LENGTH, LENGTH_ALONE = (
    0.16,
    0.08,
)  # for each e-fold of characters, between SHORT and LONG; less by words alone
SHORT, LONG = 20, 300
ASKS = -0.1  # a question is seldom what a question looks for
ANSWERS = 0.1  # what follows a question often is
WORDS_WITHIN = 3  # turns, for RAG_MIN_SIMILARITY; contract section 2


@dataclass(frozen=True)
class Candidate:
    """A message that may be recalled, or stands near one: ``prev`` is the turn before, ``hits`` the terms it has."""

    reference: int
    prev: int | None
    by_user: bool
    chars: int
    asks: bool
    hits: frozenset[int]
    similarity: float | None
    shown: bool


@dataclass(frozen=True)
class Ranked:
    """A message found: its score (higher is better, no fixed scale), and why.

    ``similarity`` is the cosine to the question, None without an embedding; ``words`` tells whether it, or a turn
    within three of it, shares a word with the question. ``companion`` is the other half of its turn: the answer to
    it, or what it answers, where that may be shown.
    """

    reference: int
    score: float
    similarity: float | None
    words: bool
    by_user: bool
    companion: int | None


@dataclass
class Terms:
    """The question's terms that some of the user's messages have: their weight, ln(1 + n/df); whether they spread."""

    weights: dict[int, float] = field(default_factory=dict)
    spreading: set[int] = field(default_factory=set)
    total: float = 0.0  # of the weights

    def add(self, term: int, *, messages: int, spreads: bool, of: float) -> None:
        """``messages`` of the user's ``of`` have the term."""
        self.weights[term] = math.log(1 + of / messages)
        self.total += self.weights[term]
        if spreads:
            self.spreading.add(term)


def rank(candidates: Iterable[Candidate], terms: Terms, *, by_meaning: bool) -> list[Ranked]:
    """Those that may be shown, best first; of equals the user's own words, then the later."""
    turns = Turns(candidates)
    meaning = Meaning(turns.rows.values())
    found = []
    for one in turns.rows.values():
        if one.shown:
            around = turns.around(one)
            nearest = nearest_hits(around)
            words = _words(nearest, terms)
            score = WORDS * words + meaning.of(around) + _shape(turns, one, by_meaning=by_meaning)
            near_words = any(away <= WORDS_WITHIN for away in nearest.values())
            if words or one.similarity is not None:
                companion = turns.companion(one)
                found.append(
                    Ranked(one.reference, score, one.similarity, near_words, one.by_user, companion)
                )
    return sorted(found, key=lambda one: (one.score, one.by_user, one.reference), reverse=True)


class Turns:
    """The candidates as they follow each other in their conversations."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.rows = {one.reference: one for one in candidates}
        self.before = {
            key: self.rows[one.prev] for key, one in self.rows.items() if one.prev in self.rows
        }
        self.after = {one.reference: self.rows[key] for key, one in self.before.items()}

    def companion(self, one: Candidate) -> int | None:
        """The answer that follows what the user said, or what an answer follows."""
        other = (self.after if one.by_user else self.before).get(one.reference)
        return other.reference if other and other.shown and other.by_user != one.by_user else None

    def around(self, one: Candidate) -> list[list[Candidate]]:
        """The candidates 0, 1, 2, 3 and 4 turns away, on either side."""
        found = [[one]]
        before: Candidate | None = one
        after: Candidate | None = one
        for _ in NEARNESS[1:]:
            before = self.before.get(before.reference) if before else None
            after = self.after.get(after.reference) if after else None
            found.append([near for near in (before, after) if near])
        return found


def nearest_hits(around: list[list[Candidate]]) -> dict[int, int]:
    """How many turns away, 0 to 4, each of the question's terms stands."""
    nearest: dict[int, int] = {}
    for turns, found in enumerate(around):
        for one in found:
            for term in one.hits:
                nearest.setdefault(term, turns)
    return nearest


class Meaning:
    """Similarities less their mean over all candidates, with those of the turns around."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        known = [one.similarity for one in candidates if _is_number(one.similarity)]
        self._mean = sum(known, 0.0) / len(known) if known else 0.0

    def of(self, around: list[list[Candidate]]) -> float:
        """0.0 where nothing has an embedding."""
        weighted = zip((1.0, *NEIGHBOURS), around, strict=False)
        return sum(weight * sum(map(self._above_mean, found)) for weight, found in weighted)

    def _above_mean(self, one: Candidate) -> float:
        return one.similarity - self._mean if _is_number(one.similarity) else 0.0


def _words(nearest: dict[int, int], terms: Terms) -> float:
    """The share, by weight, of the question's terms that a candidate has, or that stand near it."""
    found = 0.0
    for term, away in nearest.items():
        if term in terms.spreading:
            found += terms.weights[term] * NEARNESS[away]
        elif away == 0:
            found += terms.weights.get(term, 0.0) * COMMON
    return found / terms.total if terms.total else 0.0


def _shape(turns: Turns, one: Candidate, *, by_meaning: bool) -> float:
    """What length, asking and answering add."""
    length = (LENGTH if by_meaning else LENGTH_ALONE) * math.log(min(max(one.chars, SHORT), LONG))
    before = turns.before.get(one.reference)
    return length + (ASKS if one.asks else 0.0) + (ANSWERS if before and before.asks else 0.0)


def _is_number(similarity: float | None) -> TypeGuard[float]:
    return similarity is not None and not math.isnan(similarity)
