"""The order of recall, on rows without a database."""

from typing import Any

import numpy as np
import pytest

from retrieval.recall.ranking import MEANING, rank
from retrieval.recall.rows import Rows, Terms


def rows_of(count: int, **columns: Any) -> Rows:
    """Turns of one conversation, the user's first; without words in common with the question."""
    return Rows(
        **{
            "refs": np.arange(count) * 2 + 2,
            "follows": np.arange(count) > 0,
            "shown": np.ones(count, bool),
            "is_question": np.zeros(count, bool),
            "by_user": np.arange(count) % 2 == 0,
            "chars": np.full(count, 100),
            "similarity": np.full(count, np.nan),
            "error": 0.0,
            "terms": terms_of(count),
        }
        | columns
    )


def terms_of(count: int, *places: int) -> Terms:
    """One term, in the messages of these places."""
    hits = np.zeros((1, count), bool)
    hits[0, list(places)] = True
    return Terms(count, np.array([len(places)]), np.ones(1, bool), hits)


def order(rows: Rows) -> list[int]:
    """Places of the ranked rows, best first."""
    return [int(ref) // 2 - 1 for ref in rank(rows).refs]


SIMILARITY = np.random.default_rng(1).normal(0.3, 0.1, 40)


@pytest.mark.parametrize("factor", [0.1, 0.5, 3.0])
def test_the_order_does_not_depend_on_how_far_cosines_spread(factor: float) -> None:
    terms = terms_of(40, 7, 30)
    wide = rows_of(40, similarity=SIMILARITY, terms=terms)
    other = rows_of(40, similarity=0.8 + factor * SIMILARITY, terms=terms)
    assert order(wide) == order(other)


def test_the_error_of_estimates_does_not_lower_the_weight_of_meaning() -> None:
    estimates = SIMILARITY + np.random.default_rng(2).normal(0, 0.05, 40)
    exact = rank(rows_of(40, similarity=SIMILARITY)).similarity_weight
    estimated = rank(rows_of(40, similarity=estimates, error=0.05)).similarity_weight
    assert exact == pytest.approx(MEANING / SIMILARITY.std())
    assert estimated == pytest.approx(exact, rel=0.15)


@pytest.mark.parametrize("similarity", [[0.5] * 30, [0.5], [np.nan] * 3 + [0.4], [np.nan] * 30])
def test_few_or_equal_similarities_give_finite_scores(similarity: list[float]) -> None:
    rows = rows_of(len(similarity), similarity=np.array(similarity), error=0.04)
    assert np.isfinite(rank(rows).scores).all()


def test_a_terse_message_is_explained_by_its_answer() -> None:
    similarity = np.full(40, 0.2)
    similarity[11] = 0.9  # the answer to the message at 10; the one at 12 only follows it
    places = order(rows_of(40, similarity=similarity))
    assert places.index(10) < places.index(12)


def test_length_counts_within_an_authors_messages() -> None:
    chars = np.where(np.arange(40) % 2, 300, 30)
    chars[20] = 60  # long for this user, shorter than any answer
    places = order(rows_of(40, similarity=np.full(40, 0.2), chars=chars))
    assert places[0] == 20
    assert all(place % 2 == 0 for place in places[:20])


def test_words_alone_prefer_the_users_own_messages() -> None:
    assert order(rows_of(6, terms=terms_of(6, 2, 3)))[0] == 2
