"""Recall: the messages of a user that are related to a question, best first.

1. A statement finds candidates (``candidates``).
2. Arithmetic ranks them (``ranking``).
3. A second statement returns the best by their exact similarities, without tainted messages: the
   SQL function ``recall_messages_2``.
"""

from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

import numpy as np
from django.utils import timezone

from retrieval import db
from retrieval.forgetting import propagate_taint
from retrieval.recall import candidates, older_schema
from retrieval.recall.candidates import Scope
from retrieval.recall.content_words import content_words
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import MAX_EXACT, Ranking, count_nearest, rank
from retrieval.recall.relative_dates import words_of_dates
from retrieval.vectors import Vector

MESSAGES = """
    SELECT * FROM recall_messages_2(%(user)s, %(refs)s::bigint[], %(bases)s::float8[],
        %(min_similarities)s::float8[], %(companions)s::bigint[], %(embedding)b::real[],
        %(model)s, %(mean_similarity)s, %(similarity_weight)s, %(limit)s)
"""


class Companion(NamedTuple):
    """The other message of a turn."""

    ref: int
    role: str
    content: str
    created_at: datetime
    edited_at: datetime | None


class Recalled(NamedTuple):
    """A message and its score (higher is better, no fixed scale).

    ``similarity``: the cosine to the question, None without an embedding; ``conversation``: its id
    in the table of the message's kind.
    """

    ref: int
    score: float
    similarity: float | None
    conversation: int
    title: str
    role: str
    content: str
    created_at: datetime
    edited_at: datetime | None
    companion: Companion | None


MAX_FETCHES = 4  # of 60 messages each, or as many as are wanted
MAX_PROPAGATIONS = 4  # another edit or deletion may be committed after each
COMPANION_AT = len(Recalled._fields) - 1  # in a row of MESSAGES


@dataclass(frozen=True)
class Question:
    """A question to a user's messages. ``embedding``: of ``extract_question(text)``, by ``model``.

    ``read_only``: if the user has edits or deletions that are not propagated, nothing is returned.
    """

    text: str
    scope: Scope
    embedding: Vector | None
    model: str = ""
    read_only: bool = False


def recall(
    text: str,
    scope: Scope,
    *,
    embedding: Vector | None,
    model: str = "",
    limit: int = 50,
    min_similarity: float = -1.0,
    companions: bool = False,
    read_only: bool = False,
) -> list[Recalled]:
    """The best ``limit`` messages, as ``rank_messages`` and ``fetch`` find them. Raises NoMemory.

    For the doctor and for measurements; answers use chat/memory/recall.py. ``min_similarity`` is
    required of messages that share no word with the question.
    """
    question = Question(text, scope, embedding, model, read_only)
    ranking = rank_messages(question).related(min_similarity)
    return fetch(question, ranking, limit=limit, companions=companions)


def rank_messages(question: Question) -> Ranking:
    """Every message that shares a word with the question, or has a vector; ranked. Raises NoMemory.

    One statement, and one for each date that the question names as "yesterday" or "last week".
    """
    find = candidates.find_candidates if db.has_recall_functions() else older_schema.find_candidates
    sentence, user_id = extract_question(question.text), question.scope.user_id
    asked_at = question.scope.asked_at or timezone.now()
    dates = words_of_dates(sentence, user_id=user_id, asked_at=asked_at)
    text = f"{content_words(sentence)} {dates}"
    embedding, model = question.embedding, question.model
    return rank(find(text, question.scope, embedding=embedding, model=model))


def fetch(question: Question, ranking: Ranking, *, limit: int, companions: bool) -> list[Recalled]:
    """The best ``limit`` of the ranked messages that may be recalled. Raises NoMemory.

    One statement; up to MAX_FETCHES if others take the places of tainted or dissimilar messages.
    After an edit or a deletion five more, and again after one that comes meanwhile.
    """
    messages: list[Recalled] = []
    waiting = ranking
    for _ in range(MAX_FETCHES if len(ranking) else 0):
        contenders = waiting.contenders(limit - len(messages))
        params = _parameters(question, waiting[contenders], limit=limit, companions=companions)
        messages += [_recalled(*row) for row in _execute(question, params)]
        if len(messages) >= limit or contenders.all():
            break
        waiting = waiting[~contenders]
    return _best(messages, limit)


def _best(messages: list[Recalled], limit: int) -> list[Recalled]:
    """The best by score, of which some are the nearest (``count_nearest``)."""
    by_score = sorted(messages, key=lambda message: message.score, reverse=True)
    by_meaning = sorted(messages, key=lambda message: message.similarity or -1.0, reverse=True)
    nearest = {message.ref for message in by_meaning[: count_nearest(limit)]}
    others = [message.ref for message in by_score if message.ref not in nearest]
    chosen = nearest.union(others[: limit - len(nearest)])
    return [message for message in by_score if message.ref in chosen]


def _parameters(
    question: Question, ranking: Ranking, *, limit: int, companions: bool
) -> dict[str, Any]:
    return {
        "user": question.scope.user_id,
        "refs": db.array_of(ranking.refs),
        "bases": db.array_of(ranking.bases),
        "min_similarities": db.array_of(ranking.min_similarities),
        "companions": db.array_of(ranking.companions if companions else ranking.companions * 0),
        "embedding": question.embedding,
        "model": question.model,
        "mean_similarity": ranking.mean_similarity,
        "similarity_weight": ranking.similarity_weight,
        # The nearest need not be among the best by score.
        "limit": len(ranking) if count_nearest(limit) else limit,
    }


def _execute(question: Question, params: dict[str, Any]) -> list[tuple[Any, ...]]:
    """The rows of MESSAGES, after the taint of the user's edits and deletions is propagated.

    No rows if others edit or delete as fast: what was forgotten must not be recalled.
    """
    for _ in range(MAX_PROPAGATIONS):
        rows = db.execute(MESSAGES, params, binary=True)
        if not rows or rows[0][0] is not None:
            return rows
        if question.read_only:
            break
        propagate_taint(question.scope.user_id)
    return []


def _recalled(*row: Any) -> Recalled:
    """``row``: the fields of Recalled, then those of Companion, which are NULL without one."""
    companion = Companion(*row[COMPANION_AT:]) if row[COMPANION_AT] else None
    return Recalled(*(*row[:COMPANION_AT], companion))


def nearest(scope: Scope, *, embedding: Vector, model: str) -> list[int]:
    """Refs of the messages that ``recall`` would compare exactly if meaning alone decided.

    To measure it against an exact search. One statement. Raises NoMemory.
    """
    rows = candidates.find_candidates("", scope, embedding=embedding, model=model)
    similar = np.argsort(-np.nan_to_num(rows.similarity, nan=-1.0))[:MAX_EXACT]
    return [int(ref) for ref in rows.refs[similar[rows.has_similarity[similar]]]]
