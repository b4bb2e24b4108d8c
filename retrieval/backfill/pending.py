"""Which messages are pending: no vector of the current model, not set aside, not switched off. All of it is SQL."""

from dataclasses import dataclass
from typing import TypeAlias

from retrieval import db
from retrieval.message_tables import MessageTable

# The user's own text is not read into the log or anywhere else: it goes to the model, and its vector comes back.
# From the index message_memories_pending, in the order of ids: 1 ms among 1,000,000 rows, however few are pending.
# Ordered by all of its columns, and by comparing them together: with an equality for the model the planner may walk
# the primary key instead, past all that is embedded already, 60 to 140 ms.
NEXT = """
    SELECT m.id, m.user_id, m.content FROM message_memories p JOIN {table} m ON m.id = p.id >> 1
    WHERE {model} AND (p.id & 1) = {number} AND p.id > %(after)s AND p.embedding_error IS NULL AND {remembered}
    ORDER BY p.model, p.id & 1, p.id LIMIT %(limit)s
"""
NO_MODEL = "p.model IS NULL"
OF_MODEL = "(p.model, p.id & 1, p.id) > (%(model)s, {number}, %(after)s) AND p.model <= %(model)s"
# A message without a row in recall's table is pending too: words.fill gives it one.
COUNT = """
    SELECT count(*) FILTER (WHERE {pending}), coalesce(sum(length(m.content)) FILTER (WHERE {pending}), 0),
        count(*) FILTER (WHERE p.model = c.id), count(*) FILTER (WHERE {failed})
    FROM {table} m LEFT JOIN message_memories p ON p.id = m.id * 2 + {number}
    LEFT JOIN embedding_models c ON CASE WHEN %(model)s::text IS NULL THEN c.current ELSE c.name = %(model)s END
    WHERE m.content <> '' AND {remembered}
"""
WITHOUT = "(p.model IS NULL OR p.model IS DISTINCT FROM c.id)"  # also where no model is current yet
OTHER_MODELS = "SELECT id FROM embedding_models WHERE NOT current ORDER BY id"
SET_ASIDE = """
    UPDATE message_memories p SET embedding_error = %(reason)s FROM {table} m
    WHERE m.id = %(id)s AND p.id = m.id * 2 + {number} AND m.content = %(content)s
"""
# A row that somebody holds is left out: it is getting an embedding, or another text.
RETRY = """
    WITH few AS MATERIALIZED (
        SELECT id FROM message_memories WHERE embedding_error IS NOT NULL AND (id & 1) = {number}
        ORDER BY id LIMIT %(rows)s FOR NO KEY UPDATE SKIP LOCKED
    )
    UPDATE message_memories p SET embedding_error = NULL FROM few WHERE p.id = few.id
"""
RETRY_ROWS = 500  # a transaction

Text: TypeAlias = tuple[
    int, str
]  # (user, content): equal texts of one user are bought once, of two users twice


@dataclass(frozen=True)
class Row:
    """A message that waits for its embedding."""

    pk: int
    user_id: int
    content: str

    @property
    def text(self) -> Text:
        """What is to be embedded, and whose it is."""
        return self.user_id, self.content


@dataclass(frozen=True)
class Counts:
    """The messages of a table: pending (and their characters), embedded by the current model, set aside."""

    pending: int
    pending_chars: int
    embedded: int
    failed: int


def count(source: MessageTable, *, model: str | None) -> Counts:
    """Where the table stands, or would, with the model of this name as the current one; None for the database's.

    One statement, which reads the table. Raises NoMemory.
    """
    return Counts(*map(int, db.execute(of(COUNT, source), {"model": model})[0]))


def count_pending(source: MessageTable, *, model: str | None) -> int:
    """How many messages of the table wait for ``model``, None for the database's.

    One statement, which reads the table. Raises NoMemory.
    """
    return count(source, model=model).pending


def models_of_pending() -> list[int | None]:
    """By which models pending rows may have a vector: None, for those without one, then every model but the current.

    One statement.
    """
    return [None, *(int(row[0]) for row in db.execute(OTHER_MODELS, {}))]


def next_rows(source: MessageTable, *, model: int | None, after: int, limit: int) -> list[Row]:
    """The table's oldest pending rows with an id over ``after`` and a vector by ``model``. One statement."""
    params = {"after": source.pack_ref(after), "limit": limit, "model": model}
    return [Row(*row) for row in db.execute(next_statement(source, model), params)]


def next_statement(source: MessageTable, model: int | None) -> str:
    """What ``next_rows`` asks; a test looks at its plan."""
    return of(NEXT.replace("{model}", NO_MODEL if model is None else OF_MODEL), source)


def set_aside(source: MessageTable, row: Row, reason: str) -> bool:
    """Keep the reason with the row, whether it still holds that text; it is not pending any more. One statement."""
    params = {"id": row.pk, "content": row.content, "reason": reason}
    return bool(db.execute(of(SET_ASIDE, source), params)[0][0])


def retry_failed(source: MessageTable) -> int:
    """Make the rows that were set aside pending again; how many. One statement for RETRY_ROWS of them."""
    taken = 0
    while rows := int(db.execute(of(RETRY, source), {"rows": RETRY_ROWS})[0][0]):
        taken += rows
    return taken


def of(statement: str, source: MessageTable) -> str:
    """The statement for one table."""
    names = {
        "{pending}": f"({WITHOUT} AND p.embedding_error IS NULL)",
        "{failed}": f"({WITHOUT} AND p.embedding_error IS NOT NULL)",
        "{table}": source.table,
        "{number}": str(source.kind_bit),
        "{remembered}": source.remembered,
    }
    for name, value in names.items():
        statement = statement.replace(name, value)
    return statement
