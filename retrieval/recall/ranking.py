"""Orders the candidates of a recall: arithmetic without a database.

docs/how-memory-works.md has a worked example. All constants were fitted on conversations of 400 to
700 messages: docs/decisions/0010-hybrid-recall.md.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import TypeGuard

# Weight of a word by the distance of the message that has it: 0, 1, 2, 3 or 4 messages away.
NEARNESS = (1.0, 0.7, 0.5, 0.35, 0.2)
# Weight of a frequent word (in more than max_messages, candidates.sql): counted only in the message
# itself, doubled because it does not spread.
FREQUENT = 2.0
WORDS = 1.4  # weight of words in the score; that of meaning is 1
NEIGHBOURS = (0.4, 0.2)  # weight of the similarity of the messages 1 and 2 away
# Factor of ln(characters), which are limited to SHORT and LONG; less if words alone decide.
LENGTH, LENGTH_ALONE = 0.16, 0.08
SHORT, LONG = 20, 300  # characters
QUESTION = -0.1  # a question is seldom what a question looks for
AFTER_QUESTION = 0.1  # what follows a question often is
WORDS_WITHIN = 3  # messages, for RAG_MIN_SIMILARITY: docs/promises.md, "Settings"


@dataclass(frozen=True)
class Candidate:
    """A message that may be recalled, or a neighbour of one.

    ``prev`` is the ref of the message before; ``terms`` are those of the question's terms that it
    has, by number; ``shown``: whether the scope allows to return it.
    """

    ref: int
    prev: int | None
    by_user: bool
    chars: int
    is_question: bool
    terms: frozenset[int]
    similarity: float | None
    shown: bool


@dataclass(frozen=True)
class Ranked:
    """A recalled message: its score (higher is better, no fixed scale), and why.

    ``similarity``: the cosine to the question, None without an embedding. ``shares_words``: whether
    it, or a message within three of it, has a word of the question. ``companion``: the answer to
    it, or the message that it answers, if that may be shown.
    """

    ref: int
    score: float
    similarity: float | None
    shares_words: bool
    by_user: bool
    companion: int | None


@dataclass
class Terms:
    """The question's terms that the user's messages have: their weights, and which of them spread.

    A weight is ln(1 + n/df): n messages, df of them with the term. A term that spreads also counts
    for the neighbours of a message that has it.
    """

    weights: dict[int, float] = field(default_factory=dict)
    spreading: set[int] = field(default_factory=set)
    total: float = 0.0  # of the weights

    def add(self, term: int, *, messages: int, spreads: bool, of: float) -> None:
        """``messages`` of the user's ``of`` messages have the term."""
        self.weights[term] = math.log(1 + of / messages)
        self.total += self.weights[term]
        if spreads:
            self.spreading.add(term)


def rank(candidates: Iterable[Candidate], terms: Terms, *, by_meaning: bool) -> list[Ranked]:
    """The shown candidates, best first; of equals the user's own, then the higher ref."""
    neighbours = Neighbours(candidates)
    meaning = Meaning(neighbours.rows.values())
    ranked = []
    for candidate in neighbours.rows.values():
        if not candidate.shown:
            continue
        around = neighbours.around(candidate)
        nearest = _term_distances(around)
        words = _words(nearest, terms)
        if words or candidate.similarity is not None:
            shape = _shape(neighbours, candidate, by_meaning=by_meaning)
            score = WORDS * words + meaning.of(around) + shape
            row = Ranked(
                ref=candidate.ref,
                score=score,
                similarity=candidate.similarity,
                shares_words=any(distance <= WORDS_WITHIN for distance in nearest.values()),
                by_user=candidate.by_user,
                companion=neighbours.companion(candidate),
            )
            ranked.append(row)
    return sorted(ranked, key=lambda row: (row.score, row.by_user, row.ref), reverse=True)


class Neighbours:
    """Which candidates stand before and after each other in their conversations."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        self.rows = {candidate.ref: candidate for candidate in candidates}
        self.before = {
            ref: self.rows[candidate.prev]
            for ref, candidate in self.rows.items()
            if candidate.prev in self.rows
        }
        self.after = {previous.ref: self.rows[ref] for ref, previous in self.before.items()}

    def companion(self, candidate: Candidate) -> int | None:
        """The answer that follows a user's message, or the message that an answer follows."""
        other = (self.after if candidate.by_user else self.before).get(candidate.ref)
        if other and other.shown and other.by_user != candidate.by_user:
            return other.ref
        return None

    def around(self, candidate: Candidate) -> list[list[Candidate]]:
        """The candidates 0, 1, 2, 3 and 4 messages away, on either side."""
        distances = [[candidate]]
        before: Candidate | None = candidate
        after: Candidate | None = candidate
        for _ in NEARNESS[1:]:
            before = self.before.get(before.ref) if before else None
            after = self.after.get(after.ref) if after else None
            distances.append([neighbour for neighbour in (before, after) if neighbour])
        return distances


def _term_distances(around: list[list[Candidate]]) -> dict[int, int]:
    """How many messages away, 0 to 4, each of the question's terms is at its nearest."""
    nearest: dict[int, int] = {}
    for distance, neighbours in enumerate(around):
        for neighbour in neighbours:
            for term in neighbour.terms:
                nearest.setdefault(term, distance)
    return nearest


class Meaning:
    """Similarities less their mean over all candidates, with those of the neighbours."""

    def __init__(self, candidates: Iterable[Candidate]) -> None:
        known = [row.similarity for row in candidates if _is_number(row.similarity)]
        self._mean = sum(known, 0.0) / len(known) if known else 0.0

    def of(self, around: list[list[Candidate]]) -> float:
        """0.0 if nothing has an embedding."""
        weighted = zip((1.0, *NEIGHBOURS), around, strict=False)
        return sum(weight * sum(map(self._above_mean, rows)) for weight, rows in weighted)

    def _above_mean(self, row: Candidate) -> float:
        return row.similarity - self._mean if _is_number(row.similarity) else 0.0


def _words(nearest: dict[int, int], terms: Terms) -> float:
    """The share, by weight, of the question's terms that a message or its neighbours have."""
    weight = 0.0
    for term, distance in nearest.items():
        if term in terms.spreading:
            weight += terms.weights[term] * NEARNESS[distance]
        elif distance == 0:
            weight += terms.weights.get(term, 0.0) * FREQUENT
    return weight / terms.total if terms.total else 0.0


def _shape(neighbours: Neighbours, candidate: Candidate, *, by_meaning: bool) -> float:
    """What length, being a question and following one add."""
    chars = min(max(candidate.chars, SHORT), LONG)
    length = (LENGTH if by_meaning else LENGTH_ALONE) * math.log(chars)
    question = QUESTION if candidate.is_question else 0.0
    before = neighbours.before.get(candidate.ref)
    return length + question + (AFTER_QUESTION if before and before.is_question else 0.0)


def _is_number(similarity: float | None) -> TypeGuard[float]:
    return similarity is not None and not math.isnan(similarity)
