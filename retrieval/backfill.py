"""Embed what has no embedding yet, oldest first, in batches that are kept one by one."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass

from retrieval import embeddings, sql, storage
from retrieval.models import sources
from retrieval.sources import Source

# The user's own text is not read into the log or anywhere else: it goes to the model, and its vector comes back.
PENDING = """
    SELECT m.id, m.user_id, m.content FROM {table} m
    WHERE m.embedding IS NULL AND m.content <> '' AND m.id > %(after)s AND {remembered}
    ORDER BY m.id LIMIT %(limit)s
"""
COUNT = "SELECT count(*) FROM {table} m WHERE m.embedding IS NULL AND m.content <> '' AND {remembered}"


@dataclass(frozen=True)
class Row:
    """A message that waits for its embedding."""

    pk: int
    user_id: int
    content: str


def count_pending(source: Source) -> int:
    """How many messages of the table wait. One statement. Raises sql.NoMemory."""
    return int(sql.run(_of(COUNT, source), {})[0][0])


def backfill(*, batch_size: int, on_batch: Callable[[int], None] = lambda _: None) -> int:
    """Embed all that is pending in every table; how many rows got an embedding. ``on_batch`` is told of each batch.

    No transaction is open while the model works; what is stored stays, so it may be ended and run again at any time.
    Raises EmbeddingError, with the batches before it kept; sql.NoMemory.
    """
    model = embeddings.model_name()
    if model is None:
        raise embeddings.NotConfigured("no embedding model is configured: set OPENAI_API_KEY, or EMBEDDINGS=local")
    storage.check_model(model)
    done = 0
    for source in sources():
        for rows in _batches(source, batch_size):
            done += _embed(source, rows, model)
            on_batch(len(rows))
    return done


def _batches(source: Source, size: int) -> Iterator[list[Row]]:
    after = 0
    while rows := [Row(*row) for row in sql.run(_of(PENDING, source), {"after": after, "limit": size})]:
        after = rows[-1].pk
        yield rows


def _embed(source: Source, rows: list[Row], model: str) -> int:
    """Store a vector for each row, bought unless an equal text of the same user has one."""
    found = {row.pk: storage.known(row.user_id, row.content, model=model) for row in rows}
    missing = [row for row in rows if found[row.pk] is None]
    bought = embeddings.get_embeddings_batch([row.content for row in missing])
    vectors = found | {row.pk: vector for row, vector in zip(missing, bought, strict=True)}
    stored = 0
    for row in rows:
        vector = vectors[row.pk]
        if vector is not None:
            stored += storage.store(source, row.pk, row.content, vector, model=model)
    return stored


def _of(statement: str, source: Source) -> str:
    return statement.replace("{table}", source.table).replace("{remembered}", source.remembered)
