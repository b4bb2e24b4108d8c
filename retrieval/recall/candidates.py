"""Find a user's own earlier messages for a question, by words and by meaning. docs/decisions/0009

Two steps: one statement that returns some hundred narrow rows (the candidates, with the turns around them), and
arithmetic on them here. Figures and constants: docs/decisions/0010-hybrid-recall.md.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import db
from retrieval.models import message_tables
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import Candidate, Ranked, Terms, rank

WORD_SEEDS, WORD_SEEDS_ALONE = 40, 70  # the best by words; more where meaning cannot help
CODES = 100  # the nearest by the distance of bits: of the five nearest by cosine 30 hold 97 %, 100 hold all
MEANING_SEEDS = 30  # of these, the nearest by cosine
SPREADING_CAP = 1500  # postings of a term that are looked at
SPREADING_SHARE = (
    0.15  # a term in more of the user's messages says little, and does not lead to their neighbours
)
# LIMIT 1 in a subquery that can give one row anyway: a row is looked up by its key, whatever the planner makes of the
# tables' sizes; else it reads a whole table of 20,000 to join a hundred rows of it.
ROWS = """
WITH q AS MATERIALIZED (
    SELECT ord::int AS ord, h FROM unnest(message_terms(%(user)s, %(question)s)) WITH ORDINALITY u(h, ord)
), total AS MATERIALIZED (
    SELECT count(*)::float AS n FROM (SELECT FROM message_memories WHERE user_id = %(user)s LIMIT 10000) x
), post AS MATERIALIZED (
    SELECT q.ord, p.id FROM q CROSS JOIN LATERAL (
        -- The user's condition stands outside: inside, the planner would read all of the user's rows for each term.
        -- Only what conditions name: a materialized row is copied, and terms and bits are most of it.
        WITH p AS MATERIALIZED (
            SELECT id, user_id, conversation, created_at, by_user FROM message_memories WHERE terms && ARRAY[q.h]
        )
        SELECT p.* FROM p LIMIT %(cap)s + 1
    ) p WHERE p.user_id = %(user)s AND {shown}
), df AS MATERIALIZED (
    SELECT ord, count(*) AS df, least(%(cap)s, greatest(30, %(share)s * (SELECT n FROM total))) AS most
    FROM post GROUP BY ord
), words AS (
    SELECT post.id FROM post JOIN df USING (ord), total WHERE df.df <= df.most GROUP BY post.id
    ORDER BY sum(ln(1 + n / df.df)) DESC, post.id DESC LIMIT %(word_seeds)s
){meaning}, seed AS MATERIALIZED (
    SELECT m.id, m.conversation, m.created_at FROM ({seeds}) x CROSS JOIN LATERAL (
        SELECT id, conversation, created_at FROM message_memories WHERE id = x.id LIMIT 1) m
), near AS MATERIALIZED (
    SELECT id, max(prev) AS prev FROM (
        SELECT w.id, lag(w.id) OVER (PARTITION BY s.id ORDER BY w.created_at, w.id) AS prev
        FROM seed s CROSS JOIN LATERAL (
            (SELECT id, created_at FROM message_memories p WHERE conversation = s.conversation
                AND (created_at, id) >= (s.created_at, s.id) AND NOT p.id = ANY (%(excluded)s::bigint[])
                ORDER BY created_at, id LIMIT 4)
            UNION ALL
            (SELECT id, created_at FROM message_memories p WHERE conversation = s.conversation
                AND (created_at, id) < (s.created_at, s.id) AND NOT p.id = ANY (%(excluded)s::bigint[])
                ORDER BY created_at DESC, id DESC LIMIT 3)
        ) w
    ) x GROUP BY id
)
SELECT near.id, near.prev, p.by_user, abs(p.chars), coalesce(p.is_question, p.chars < 0),
    (SELECT array_agg(q.ord) FROM q WHERE q.h = ANY (p.terms)), {similarity}, {shown}
FROM near CROSS JOIN LATERAL (SELECT * FROM message_memories WHERE id = near.id LIMIT 1) p {texts}
WHERE p.user_id + 0 = %(user)s
UNION ALL SELECT -ord, NULL, NULL, NULL, NULL, ARRAY[df::int, (df <= most)::int], n, NULL FROM df, total
"""
MEANING = """, asked AS MATERIALIZED (
    SELECT e, {vector}.binary_quantize(e)::bit(1536) AS b, (
        SELECT id FROM embedding_models WHERE current AND name = %(model)s) AS model
    FROM (SELECT %(embedding)b::{vector}.vector(1536) AS e) x
), coded AS MATERIALIZED (
    SELECT p.id, p.model FROM message_memories p
    WHERE p.user_id = %(user)s AND p.bits IS NOT NULL AND p.model = (SELECT model FROM asked) AND {shown}
    ORDER BY p.bits OPERATOR({vector}.<~>) (SELECT b FROM asked) LIMIT %(codes)s
), meaning AS (
    SELECT p.id FROM coded p {texts} ORDER BY {distance} LIMIT %(meaning_seeds)s
)"""
NEAREST = f"WITH {MEANING.removeprefix(', ')} SELECT id FROM meaning"  # noqa: S608 # of our own constants
TEXT = """LEFT JOIN LATERAL (
    SELECT embedding FROM {table} WHERE id = CASE WHEN (p.id & 1) = {number} THEN p.id >> 1 END
        AND p.model = (SELECT model FROM asked) LIMIT 1) t{number} ON true"""
DISTANCE = "coalesce({embeddings}) OPERATOR({vector}.<=>) (SELECT e FROM asked)"


@dataclass(frozen=True)
class Scope:
    """What a recall may find: messages of one user, less what is switched off or in the prompt already.

    ``excluded`` and ``hidden`` hold references (``Source.reference``) of messages and of conversations.
    """

    user_id: int
    excluded: list[int] = field(default_factory=list)
    hidden: list[int] = field(default_factory=list)
    since: datetime | None = None
    until: datetime | None = None
    by_user: bool | None = None
    source: int | None = None


def recall(
    question: str, scope: Scope, *, embedding: NDArray[np.float32] | None, model: str = ""
) -> list[Ranked]:
    """The user's messages that have to do with the question, best first: 25 and more, where there are so many.

    ``embedding`` is that of the question's ``gist``, by ``model``; without it words alone decide.
    One statement. Raises sql.NoMemory.
    """
    params = {
        "user": scope.user_id,
        "question": extract_question(question),
        "cap": SPREADING_CAP,
        "share": SPREADING_SHARE,
        "word_seeds": WORD_SEEDS_ALONE if embedding is None else WORD_SEEDS,
        "codes": CODES,
        "meaning_seeds": MEANING_SEEDS,
        "embedding": embedding,
        "model": model,
    }
    shown, filters = _shown(scope)
    candidates, terms = _parse(
        db.execute(_statement(shown, by_meaning=embedding is not None), params | filters)
    )
    return rank(candidates, terms, by_meaning=any(one.similarity is not None for one in candidates))


def nearest(scope: Scope, *, embedding: NDArray[np.float32], model: str) -> list[int]:
    """References of what recall would look at for its meaning, as ``recall`` chooses it. One statement.

    For measuring it against an exact search. Raises sql.NoMemory.
    """
    shown, filters = _shown(scope)
    statement = _filled(NEAREST, {"{shown}": shown})
    params = {"user": scope.user_id, "embedding": embedding, "model": model}
    params |= {"codes": CODES, "meaning_seeds": MEANING_SEEDS}
    return [row[0] for row in db.execute(statement, params | filters)]


def _statement(shown: str, *, by_meaning: bool) -> str:
    if by_meaning:
        seeds = "SELECT id FROM words UNION SELECT id FROM meaning"
        parts = {"{meaning}": MEANING, "{seeds}": seeds, "{similarity}": "1 - ({distance})"}
    else:
        parts = {
            "{meaning}": "",
            "{seeds}": "SELECT id FROM words",
            "{similarity}": "NULL::float8",
            "{texts}": "",
        }
    return _filled(ROWS, parts | {"{shown}": shown})


def _filled(statement: str, parts: dict[str, str]) -> str:
    """The statement with its parts, and then with the tables of messages."""
    tables = {
        "{distance}": DISTANCE,
        "{texts}": " ".join(
            TEXT.format(table=one.table, number=one.kind_bit) for one in message_tables()
        ),
        "{embeddings}": ", ".join(f"t{one.kind_bit}.embedding" for one in message_tables()),
    }
    for name, value in (
        parts | {name: value for name, value in tables.items() if name not in parts}
    ).items():
        statement = statement.replace(name, value)
    return statement


def _shown(scope: Scope) -> tuple[str, dict[str, Any]]:
    """The condition on a row ``p`` of being shown, and its parameters; a filter that is not set costs nothing."""
    filters: dict[str, tuple[str, Any]] = {
        "since": ("p.created_at >= %(since)s", scope.since),
        "until": ("p.created_at <= %(until)s", scope.until),
        "by_user": ("p.by_user = %(by_user)s", scope.by_user),
        "source": ("p.id & 1 = %(source)s", scope.source),
        "hidden": ("NOT p.conversation = ANY (%(hidden)s::bigint[])", scope.hidden or None),
    }
    used = {name: value for name, (_, value) in filters.items() if value is not None}
    conditions = ["NOT p.id = ANY (%(excluded)s::bigint[])", *(filters[name][0] for name in used)]
    return " AND ".join(conditions), used | {"excluded": scope.excluded}


def _parse(rows: list[tuple[Any, ...]]) -> tuple[list[Candidate], Terms]:
    """A row with a negative id holds a term's statistics: ``[how many messages have it, whether it spreads]``, n."""
    candidates: list[Candidate] = []
    terms = Terms()
    for pk, prev, by_user, chars, asks, hits, number, shown in rows:
        if pk < 0:
            terms.add(-pk, messages=hits[0], spreads=bool(hits[1]), of=number)
        else:
            candidates.append(
                Candidate(pk, prev, by_user, chars, asks, frozenset(hits or ()), number, shown)
            )
    return candidates, terms
