"""Find a user's own earlier messages for a question, by words and by meaning. docs/decisions/0009

Two steps: one statement that returns some hundred narrow rows (the candidates, with the turns around them), and
arithmetic on them here. Figures and constants: docs/decisions/0010-hybrid-recall.md.
"""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import numpy as np
from numpy.typing import NDArray

from retrieval import sql
from retrieval.models import sources
from retrieval.question import gist
from retrieval.ranking import Candidate, Ranked, Terms, rank

WORD_SEEDS, WORD_SEEDS_ALONE = 40, 70  # the best by words; more where meaning cannot help
MEANING_SEEDS = 30  # the nearest by the distance of bits
SPREADING_CAP = 1500  # postings of a term that are looked at
SPREADING_SHARE = 0.15  # a term in more of the user's messages says little, and does not lead to their neighbours
ROWS = """
WITH q AS MATERIALIZED (
    SELECT ord::int AS ord, h FROM unnest(recall_terms(%(user)s, %(question)s)) WITH ORDINALITY u(h, ord)
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
    SELECT m.id, m.conversation, m.created_at FROM ({seeds}) x JOIN message_memories m USING (id)
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
SELECT near.id, near.prev, abs(p.traits), p.traits < 0, (SELECT array_agg(q.ord) FROM q WHERE q.h = ANY (p.terms)),
    {similarity}, {shown}
FROM near JOIN message_memories p ON p.id = near.id {texts} WHERE p.user_id + 0 = %(user)s
UNION ALL SELECT -ord, NULL, NULL, NULL, ARRAY[df::int, (df <= most)::int], n, NULL FROM df, total
"""
MEANING = """, asked AS MATERIALIZED (
    SELECT e, {vector}.binary_quantize(e)::bit(1536) AS b, (
        SELECT id FROM embedding_models WHERE current AND name = %(model)s) AS model
    FROM (SELECT %(embedding)b::{vector}.vector(1536) AS e) x
), meaning AS (
    SELECT p.id FROM message_memories p
    WHERE p.user_id = %(user)s AND p.bits IS NOT NULL AND p.model = (SELECT model FROM asked) AND {shown}
    ORDER BY p.bits OPERATOR({vector}.<~>) (SELECT b FROM asked) LIMIT %(meaning_seeds)s
)"""
TEXT = """LEFT JOIN {table} t{number} ON t{number}.id = CASE WHEN (p.id & 1) = {number} THEN p.id >> 1 END
    AND p.model = (SELECT model FROM asked)"""
SIMILARITY = "1 - (coalesce({embeddings}) OPERATOR({vector}.<=>) (SELECT e FROM asked))"


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


def recall(question: str, scope: Scope, *, embedding: NDArray[np.float32] | None, model: str = "") -> list[Ranked]:
    """The user's messages that have to do with the question, best first: 25 and more, where there are so many.

    ``embedding`` is that of the question's ``gist``, by ``model``; without it words alone decide.
    One statement. Raises sql.NoMemory.
    """
    params = {
        "user": scope.user_id,
        "question": gist(question),
        "cap": SPREADING_CAP,
        "share": SPREADING_SHARE,
        "word_seeds": WORD_SEEDS_ALONE if embedding is None else WORD_SEEDS,
        "meaning_seeds": MEANING_SEEDS,
        "embedding": embedding,
        "model": model,
    }
    shown, filters = _shown(scope)
    candidates, terms = _parse(sql.run(_statement(shown, by_meaning=embedding is not None), params | filters))
    return rank(candidates, terms, by_meaning=any(one.similarity is not None for one in candidates))


def _statement(shown: str, *, by_meaning: bool) -> str:
    parts = {"{meaning}": "", "{seeds}": "SELECT id FROM words", "{similarity}": "NULL::float8", "{texts}": ""}
    if by_meaning:
        numbers = [one.number for one in sources()]
        parts["{meaning}"] = MEANING
        parts["{seeds}"] = "SELECT id FROM words UNION SELECT id FROM meaning"
        parts["{similarity}"] = SIMILARITY.replace("{embeddings}", ", ".join(f"t{one}.embedding" for one in numbers))
        parts["{texts}"] = " ".join(TEXT.format(table=one.table, number=one.number) for one in sources())
    statement = ROWS
    for name, value in [*parts.items(), ("{shown}", shown)]:
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
    for pk, prev, chars, asks, hits, number, shown in rows:
        if pk < 0:
            terms.add(-pk, messages=hits[0], spreads=bool(hits[1]), of=number)
        else:
            candidates.append(Candidate(pk, prev, chars, asks, frozenset(hits or ()), number, shown))
    return candidates, terms
