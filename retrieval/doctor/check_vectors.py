"""The stored vectors: their model and their size."""

from psycopg import sql

from retrieval.current_model import settings_of
from retrieval.doctor.database import stored_model, vector_schema
from retrieval.doctor.fixes import BACKFILL, statement
from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.embeddings import embedding_service
from retrieval.models import message_tables
from retrieval.queries import row
from retrieval.vectors import DIMENSIONS

NEWEST_ROWS = 1_000  # of each table, whose vectors are measured
SIZES = sql.SQL("""
    SELECT count(*) FILTER (WHERE {vector}.vector_dims(embedding) <> {dimensions}), count(*)
    FROM (
        SELECT embedding FROM {table} WHERE embedding IS NOT NULL ORDER BY id DESC LIMIT {limit}
    ) newest
""")
# Locks: the rows that it changes.
CLEAR = sql.SQL("""
    UPDATE {table} SET embedding = NULL WHERE {vector}.vector_dims(embedding) <> {dimensions}
""")


def stored_model_is_configured() -> Finding:
    """The configured embedding model, and the current one of the stored vectors."""
    configured, stored = embedding_service.configured_name(), stored_model()
    if configured is None:
        return passed(f"EMBEDDINGS=none; stored vectors are of {stored or 'no model'}")
    if stored is None:
        return passed(f"{configured}, no vector is stored yet")
    if stored == configured:
        newer = embedding_service.model_to_use()
        use = f"; rag_model use changes to {newer}" if newer not in (None, stored) else ""
        return passed(f"{configured}{use}")
    return failed(
        f"the stored vectors are of {stored}, the settings say {configured}: nothing is embedded, "
        "recall goes by words. Set it back, or change to the new one with rag_model use",
        *settings_of(stored),
    )


def vectors_have_their_size() -> Finding:
    """Sizes of the newest vectors of each table."""
    parts = {
        "vector": vector_schema(),
        "dimensions": sql.Literal(DIMENSIONS),
        "limit": sql.Literal(NEWEST_ROWS),
    }
    total = 0
    for table in message_tables():
        wrong, count = row(SIZES.format(**table.names, **parts))
        total += count
        if wrong:
            return failed(
                f"{table.table} holds vectors of another size than {DIMENSIONS}",
                statement(CLEAR.format(**table.names, **parts)),
                BACKFILL,
            )
    return passed(f"vector_dims is {DIMENSIONS} for each of {total:,} vectors")


def checks() -> list[Check]:
    return [
        Check("embedding.model", stored_model_is_configured),
        Check("trap.1", vectors_have_their_size),
    ]
