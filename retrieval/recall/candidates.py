"""Finds a user's own earlier messages for a question, by words and by meaning.

Two steps: one statement (candidates.sql) returns at most 490 narrow rows, up to 70 seeds with three
messages before and three after each; ``ranking`` orders them. Reasons for the tables:
docs/decisions/0009-recall-structures.md; for the constants: docs/decisions/0010-hybrid-recall.md.
"""

from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from psycopg import sql

from retrieval import db
from retrieval.models import message_tables
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import Candidate, Ranked, Terms, rank
from retrieval.sql_files import read_statement

# A seed is a message that recall finds by words or by meaning; its neighbours are ranked with it.
# The best messages by words; more if there is no embedding to find others.
WORD_SEEDS, WORD_SEEDS_ALONE = 40, 70
# Compared by cosine. The 30 nearest by bits contain 97 % of the five nearest by cosine; the 100
# nearest contain all.
MAX_BIT_CANDIDATES = 100
MEANING_SEEDS = 30  # of these, the nearest by cosine
MAX_TERM_MESSAGES = 1500  # messages of a term that are looked at
# A term in a larger share of the user's messages says little: it finds no seeds.
MAX_TERM_SHARE = 0.15

CANDIDATES = read_statement(Path(__file__).with_name("candidates.sql"))
NEAREST_CTES = read_statement(Path(__file__).with_name("nearest.sql"))
# The embedding of row ``p`` in one of the message tables.
EMBEDDING = sql.SQL("""
    LEFT JOIN LATERAL (
        SELECT embedding FROM {table} WHERE id = {key} AND p.model = (SELECT model FROM question)
        LIMIT 1) {alias} ON true
""")
DISTANCE = sql.SQL("coalesce({embeddings}) OPERATOR({vector}.<=>) (SELECT vector FROM question)")
# Conditions on a row ``p``, by the field of ``Scope`` that they compare.
FILTERS = {
    "excluded": sql.SQL("NOT p.id = ANY (%(excluded)s::bigint[])"),
    "since": sql.SQL("p.created_at >= %(since)s"),
    "until": sql.SQL("p.created_at <= %(until)s"),
    "by_user": sql.SQL("p.by_user = %(by_user)s"),
    "kind_bit": sql.SQL("p.id & 1 = %(kind_bit)s"),
    "hidden": sql.SQL("NOT p.conversation = ANY (%(hidden)s::bigint[])"),
}


@dataclass(frozen=True)
class Scope:
    """What a recall may return: one user's messages, without hidden ones and those in the prompt.

    ``excluded`` and ``hidden`` hold refs (``MessageTable.pack_ref``) of messages and of
    conversations; ``kind_bit`` is that of the only table to recall from.
    """

    user_id: int
    excluded: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None
    by_user: bool | None = None
    kind_bit: int | None = None

    @property
    def filters(self) -> dict[str, Any]:
        """Values of the FILTERS in use, by name; ``excluded`` is always one of them."""
        values = {name: getattr(self, name) for name in FILTERS}
        values["hidden"] = self.hidden or None
        return {name: value for name, value in values.items() if value is not None}


def recall(
    question: str, scope: Scope, *, embedding: NDArray[np.float32] | None, model: str = ""
) -> list[Ranked]:
    """The user's messages that are related to the question, best first, at most 490.

    ``embedding`` is that of ``extract_question(question)``, by ``model``; None: words alone
    decide. One statement. Raises NoMemory.
    """
    by_meaning = embedding is not None
    statement = candidates_statement(tuple(scope.filters), by_meaning=by_meaning)
    params = parameters(extract_question(question), scope, embedding=embedding, model=model)
    candidates, terms = _parse(db.execute(statement, params))
    has_similarity = any(candidate.similarity is not None for candidate in candidates)
    return rank(candidates, terms, by_meaning=has_similarity)


def nearest(scope: Scope, *, embedding: NDArray[np.float32], model: str) -> list[int]:
    """Refs of the messages that ``recall`` would consider for their meaning.

    To measure it against an exact search. One statement. Raises NoMemory.
    """
    statement = sql.SQL("WITH {nearest} SELECT id FROM by_meaning").format(
        nearest=_nearest(tuple(scope.filters))
    )
    params = parameters("", scope, embedding=embedding, model=model)
    return [row[0] for row in db.execute(statement, params)]


def parameters(
    question: str, scope: Scope, *, embedding: NDArray[np.float32] | None, model: str
) -> dict[str, Any]:
    """Values for candidates.sql and nearest.sql."""
    return {
        "user": scope.user_id,
        "question": question,
        "max_term_messages": MAX_TERM_MESSAGES,
        "max_term_share": MAX_TERM_SHARE,
        "word_seeds": WORD_SEEDS_ALONE if embedding is None else WORD_SEEDS,
        "max_bit_candidates": MAX_BIT_CANDIDATES,
        "meaning_seeds": MEANING_SEEDS,
        "embedding": embedding,
        "model": model,
    } | scope.filters


@db.composed_once
def candidates_statement(filters: tuple[str, ...], *, by_meaning: bool) -> sql.Composed:
    """candidates.sql with the conditions of these FILTERS; composed once for each set of them."""
    if by_meaning:
        parts = {
            "nearest": sql.SQL(",\n{}").format(_nearest(filters)),
            "seeds": sql.SQL("SELECT id FROM by_words UNION SELECT id FROM by_meaning"),
            "similarity": sql.SQL("1 - ({})").format(_distance()),
            "embeddings": _embeddings(),
        }
    else:
        parts = {
            "nearest": sql.SQL(""),
            "seeds": sql.SQL("SELECT id FROM by_words"),
            "similarity": sql.SQL("NULL::float8"),
            "embeddings": sql.SQL(""),
        }
    return CANDIDATES.format(is_shown=_is_shown(filters), **parts)


def _nearest(filters: tuple[str, ...]) -> sql.Composed:
    return NEAREST_CTES.format(
        is_shown=_is_shown(filters),
        embeddings=_embeddings(),
        distance=_distance(),
        vector=db.VECTOR_SCHEMA,
    )


def _is_shown(filters: tuple[str, ...]) -> sql.Composed:
    """Whether row ``p`` may be returned; a filter that is not set costs nothing."""
    return sql.SQL(" AND ").join(FILTERS[name] for name in filters)


def _embeddings() -> sql.Composed:
    ref = sql.SQL("p.id")
    return sql.SQL(" ").join(
        EMBEDDING.format(key=table.key_of(ref), alias=_alias(table.kind_bit), **table.names)
        for table in message_tables()
    )


def _distance() -> sql.Composed:
    embeddings = sql.SQL(", ").join(
        sql.SQL("{}.embedding").format(_alias(table.kind_bit)) for table in message_tables()
    )
    return DISTANCE.format(embeddings=embeddings, vector=db.VECTOR_SCHEMA)


def _alias(kind_bit: int) -> sql.Identifier:
    return sql.Identifier(f"t{kind_bit}")


def _parse(rows: list[tuple[Any, ...]]) -> tuple[list[Candidate], Terms]:
    """A row with a negative id holds a term's frequency, the others are candidates."""
    candidates: list[Candidate] = []
    terms = Terms()
    for ref, prev, by_user, chars, is_question, numbers, number, shown in rows:
        if ref < 0:
            terms.add(-ref, messages=numbers[0], spreads=bool(numbers[1]), of=number)
        else:
            own = frozenset(numbers or ())
            candidates.append(Candidate(ref, prev, by_user, chars, is_question, own, number, shown))
    return candidates, terms
