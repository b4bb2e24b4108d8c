"""Finds what a recall ranks on schemas before chat 0010_recall_messages, without its functions.

A new server may serve the chat before its migration, for the time of a rollout. One statement
(older_candidates.sql) returns at most 490 narrow rows: up to 70 seeds, with three messages before
and three after each. It is planned at each call and reads some hundred vectors.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from psycopg import sql

from retrieval import db
from retrieval.models import message_tables
from retrieval.recall.candidate_arrays import MAX_TERM_SHARE
from retrieval.recall.candidates import (
    MAX_TERM_MESSAGES,
    WORD_SEEDS,
    WORD_SEEDS_ALONE,
    Scope,
)
from retrieval.recall.rows import Rows, Terms
from retrieval.sql_files import read_statement
from retrieval.vectors import Vector

# Compared by cosine. The 30 nearest by bits contain 97 % of the five nearest by cosine; the 100
# nearest contain all.
MAX_BIT_CANDIDATES = 100
MEANING_SEEDS = 30  # of these, the nearest by cosine

CANDIDATES = read_statement(Path(__file__).with_name("older_candidates.sql"))
NEAREST_CTES = read_statement(Path(__file__).with_name("older_nearest.sql"))
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


def find_candidates(question: str, scope: Scope, *, embedding: Vector | None, model: str) -> Rows:
    """Like ``candidates.find_candidates``, but with exact similarities. Raises NoMemory."""
    filters = {name: getattr(scope, name) for name in FILTERS} | {"hidden": scope.hidden or None}
    filters = {name: value for name, value in filters.items() if value is not None}
    statement = _statement(tuple(filters), by_meaning=embedding is not None)
    params = {
        "user": scope.user_id,
        "question": question,
        "max_term_messages": MAX_TERM_MESSAGES,
        "max_term_share": MAX_TERM_SHARE,
        "word_seeds": WORD_SEEDS_ALONE if embedding is None else WORD_SEEDS,
        "max_bit_candidates": MAX_BIT_CANDIDATES,
        "meaning_seeds": MEANING_SEEDS,
        "embedding": embedding,
        "model": model,
    }
    rows = db.execute(statement, params | filters)
    # Rows with a negative id hold a term's frequency, and of how many messages.
    counts = [row for row in rows if row[0] < 0]
    frequencies = {-ref: (numbers[0], numbers[1]) for ref, *_, numbers, _, _ in counts}
    total = int(counts[0][6]) if counts else 0
    return _rows([_Message(*row) for row in rows if row[0] > 0], frequencies, total)


@db.composed_once
def _statement(filters: tuple[str, ...], *, by_meaning: bool) -> sql.Composed:
    """older_candidates.sql with these FILTERS; composed once for each set of them."""
    shown = sql.SQL(" AND ").join(FILTERS[name] for name in filters)
    if not by_meaning:
        return CANDIDATES.format(
            is_shown=shown,
            nearest=sql.SQL(""),
            seeds=sql.SQL("SELECT id FROM by_words"),
            similarity=sql.SQL("NULL::float8"),
            embeddings=sql.SQL(""),
        )
    nearest = NEAREST_CTES.format(
        is_shown=shown, embeddings=_embeddings(), distance=_distance(), vector=db.VECTOR_SCHEMA
    )
    return CANDIDATES.format(
        is_shown=shown,
        nearest=sql.SQL(",\n{}").format(nearest),
        seeds=sql.SQL("SELECT id FROM by_words UNION SELECT id FROM by_meaning"),
        similarity=sql.SQL("1 - ({})").format(_distance()),
        embeddings=_embeddings(),
    )


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


class _Message(NamedTuple):
    """A row of a message; ``prev``: the ref of the message before; ``terms``: numbers from 1."""

    ref: int
    prev: int | None
    by_user: bool
    chars: int
    is_question: bool
    terms: list[int] | None
    similarity: float | None
    shown: bool


def _rows(messages: list[_Message], frequencies: dict[int, tuple[int, int]], total: int) -> Rows:
    """``frequencies``: by a term's number how many messages have it, and whether it spreads."""
    ordered = list(_in_order(messages))
    terms = max(frequencies, default=0)
    terms = max([terms, *(number for row in ordered for number in row.terms or ())])
    hits = np.zeros((terms, len(ordered)), dtype=bool)
    for place, row in enumerate(ordered):
        hits[[number - 1 for number in row.terms or ()], place] = True
    counted = np.array([frequencies.get(n, (0, 0)) for n in range(1, terms + 1)], np.int64)
    counted = counted.reshape(terms, 2)
    refs = [row.ref for row in ordered]
    before = [0, *refs][: len(refs)]
    follows = [row.prev == ref for row, ref in zip(ordered, before, strict=True)]
    return Rows(
        refs=np.array(refs, np.int64),
        follows=np.array(follows, bool),
        shown=np.array([row.shown for row in ordered], bool),
        is_question=np.array([row.is_question for row in ordered], bool),
        by_user=np.array([row.by_user for row in ordered], bool),
        chars=np.array([row.chars for row in ordered], np.int64),
        similarity=np.array([row.similarity for row in ordered], np.float64),
        error=0.0,
        terms=Terms(total, counted[:, 0], counted[:, 1] > 0, hits),
    )


def _in_order(messages: list[_Message]) -> Iterator[_Message]:
    """Each message right after the one before it, if that is among them."""
    refs = {message.ref for message in messages}
    after = {message.prev: message for message in messages if message.prev in refs}
    for first in messages:
        message = first if first.prev not in refs else None
        while message:
            yield message
            message = after.get(message.ref)
