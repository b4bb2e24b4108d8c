"""Finds what a recall ranks: a user's own earlier messages, by words and by meaning.

One statement, the function ``recall_candidates_1``. A user with at most MAX_ROWS messages gets all
of them compared; for others it finds seeds, with their neighbours in the conversation. Reasons for
the tables: docs/decisions/0009-recall-structures.md; for the constants:
docs/decisions/0010-hybrid-recall.md.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from retrieval import db
from retrieval.recall.candidate_arrays import MAX_TERM_SHARE, NONE, Candidates
from retrieval.recall.question_planes import QuestionPlanes, quantise
from retrieval.recall.rows import Rows
from retrieval.vectors import Vector

MAX_ROWS = 2_500  # messages of a user who needs no seeds: 0.5 µs each, and a seed some 20 µs
# A seed is a message that recall finds by words or by meaning; its neighbours are ranked with it.
# The best messages by words; more if there is no embedding to find others.
WORD_SEEDS, WORD_SEEDS_ALONE = 40, 70
MEANING_SEEDS = 40
EITHER_SIDE = 3  # neighbours before and after a seed
MAX_TERM_MESSAGES = 1500  # messages of a term that are looked at for seeds
# Used when no seed was found and there is no embedding: frequent terms may find seeds too, the
# latest messages that have most of them.
ALL_TERMS = {"max_term_messages": 10_000, "max_term_share": 1.0}
CANDIDATES = """
    SELECT * FROM recall_candidates_1(%(user)s, %(question)s, %(planes)b, %(model)s,
        %(excluded)s::bigint[], %(hidden)s::bigint[], %(since)s, %(until)s, %(by_user)s,
        %(kind_bit)s, %(max_rows)s, %(word_seeds)s, %(meaning_seeds)s, %(either_side)s,
        %(max_term_messages)s, %(max_term_share)s)
"""


@dataclass(frozen=True)
class Scope:
    """What a recall may return: one user's messages, without hidden ones and those in the prompt.

    ``excluded`` and ``hidden`` hold refs (``MessageTable.pack_ref``) of messages and of
    conversations; ``kind_bit`` is that of the only table to recall from. ``asked_at``: when the
    question is asked, in UTC, for "yesterday" in it; None: now.
    """

    user_id: int
    excluded: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None
    by_user: bool | None = None
    kind_bit: int | None = None
    asked_at: datetime | None = None


def find_candidates(
    question: str, scope: Scope, *, embedding: Vector | None, model: str = ""
) -> Rows:
    """The rows to rank for the question, whose vector by ``model`` is ``embedding``.

    Without one, words alone decide. One statement, two if all words are very frequent. Raises
    NoMemory.
    """
    planes = None if embedding is None else quantise(embedding)
    params = parameters(question, scope, planes=planes, model=model)
    ((total, *arrays, frequencies),) = db.execute(CANDIDATES, params, binary=True)
    if total > MAX_ROWS and planes is None and arrays[0] is None:
        params |= ALL_TERMS
        ((total, *arrays, frequencies),) = db.execute(CANDIDATES, params, binary=True)
    candidates = Candidates(*(NONE if array is None else array for array in arrays))
    return candidates.rows(total, planes, frequencies)


def parameters(
    question: str, scope: Scope, *, planes: QuestionPlanes | None, model: str
) -> dict[str, Any]:
    """Values for CANDIDATES."""
    return {
        "user": scope.user_id,
        "question": question,
        "planes": planes and planes.planes,
        "model": model,
        "excluded": scope.excluded,
        "hidden": scope.hidden,
        "since": scope.since,
        "until": scope.until,
        "by_user": scope.by_user,
        "kind_bit": scope.kind_bit,
        "max_rows": MAX_ROWS,
        "word_seeds": WORD_SEEDS if planes else WORD_SEEDS_ALONE,
        "meaning_seeds": MEANING_SEEDS,
        "either_side": EITHER_SIDE,
        "max_term_messages": MAX_TERM_MESSAGES,
        "max_term_share": MAX_TERM_SHARE,
    }
