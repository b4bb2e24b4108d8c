"""Reads the arrays that ``recall_candidates_1`` returns."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from retrieval.recall.question_planes import QuestionPlanes
from retrieval.recall.rows import Bools, Rows, Terms

Integers = NDArray[np.int64]
# A term in a larger share of the user's messages, and in more than MIN_FREQUENT of them, says
# little: it finds no seeds and does not spread. schema/current_recall.sql has the 30 too.
MAX_TERM_SHARE, MIN_FREQUENT = 0.15, 30
# How recall_traits_1 packs the parts of a number in ``traits``.
DISTANCE_FACTOR, CHARS_FACTOR = 8192, 16
BY_USER, IS_QUESTION, SHOWN, FOLLOWS = 8, 4, 2, 1
NONE = np.empty(0, np.int64)


@dataclass(frozen=True)
class Candidates:
    """Three arrays with an element for each message, two with one for each term of a message."""

    refs: Integers
    conversations: Integers
    traits: Integers
    term_numbers: Integers  # from 1
    term_refs: Integers

    def rows(self, total: int, planes: QuestionPlanes | None, frequencies: Integers | None) -> Rows:
        """``frequencies``: of terms among shown messages, negative if too frequent for seeds.

        None: the rows are all of the user's messages, so they are counted.
        """
        shown = self.traits & SHOWN > 0
        distances = self.traits // DISTANCE_FACTOR
        if planes is None:
            similarity, error = np.full(len(distances), np.nan), 0.0
        else:
            similarity, error = planes.similarities(distances), planes.error
        return Rows(
            refs=self.refs,
            follows=self._follows(),
            shown=shown,
            is_question=self.traits & IS_QUESTION > 0,
            by_user=self.traits & BY_USER > 0,
            chars=self.traits % DISTANCE_FACTOR // CHARS_FACTOR,
            similarity=similarity,
            error=error,
            terms=self._terms(total, shown, frequencies),
        )

    def _follows(self) -> Bools:
        follows = self.traits & FOLLOWS > 0
        follows[:1] = False
        follows[1:] &= self.conversations[1:] == self.conversations[:-1]
        return follows

    def _terms(self, total: int, shown: Bools, frequencies: Integers | None) -> Terms:
        hits = self._hits(0 if frequencies is None else len(frequencies))
        if frequencies is None:
            frequencies = hits[:, shown].sum(axis=1)
            spreads = frequencies <= max(MIN_FREQUENT, MAX_TERM_SHARE * total)
        else:
            spreads = frequencies >= 0
        return Terms(total, np.abs(frequencies), spreads, hits)

    def _hits(self, min_terms: int) -> Bools:
        """Which row has which term, shape (terms, rows). Some refs may be of no row."""
        terms = max(int(self.term_numbers.max(initial=0)), min_terms)
        hits = np.zeros((terms, len(self.refs)), dtype=bool)
        if len(self.refs):
            order = np.argsort(self.refs)
            places = np.searchsorted(self.refs, self.term_refs, sorter=order)
            rows = order[np.minimum(places, len(order) - 1)]
            is_row = self.refs[rows] == self.term_refs
            hits[self.term_numbers[is_row] - 1, rows[is_row]] = True
        return hits
