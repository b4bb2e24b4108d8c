"""How far memory is: messages by table, indexes, the model, what is left out of a recall."""

from typing import Any

from psycopg import sql

from retrieval import current_model, db
from retrieval.backfill import pending
from retrieval.embeddings import embedding_service
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.recall import min_similarity
from retrieval.reindex.index_state import declared_indexes

MEMORIES = "message_memories"
# Neither the texts nor recall's wide rows are carried along: 1,000,000 messages in half the time of pending.COUNT.
COUNT = sql.SQL("""
    SELECT count(*), count(p.id), count(f.id)
    FROM (SELECT m.id * 2 + {kind_bit} AS id FROM {table} m WHERE m.content <> '' AND {remembered}) m
    LEFT JOIN (
        SELECT id FROM message_memories WHERE (id & 1) = {kind_bit}
            AND model = (SELECT id FROM embedding_models WHERE current)
    ) p USING (id) LEFT JOIN (
        SELECT id FROM message_memories WHERE embedding_error IS NOT NULL
            AND (model IS NULL OR model IS DISTINCT FROM (SELECT id FROM embedding_models WHERE current))
    ) f USING (id)
""")
# Times used since the statistics were reset last.
INDEXES = """
    SELECT c.relname, t.relname, pg_catalog.pg_relation_size(c.oid), i.indisvalid, coalesce(s.idx_scan, 0)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
    LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = c.oid
    WHERE t.oid = ANY (SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(%(tables)s::text[]) name)
        AND (a.amname = 'hnsw' OR t.oid = pg_catalog.to_regclass(%(memories)s))
    ORDER BY t.relname, c.relname
"""


def collect() -> dict[str, Any]:
    """Everything, as ``rag_status --json`` prints it. Five statements, two of which read the tables of messages.

    Messages that are switched off count nowhere. Raises sql.NoMemory.
    """
    model, configured = current_model.current_model(), embedding_service.configured_name()
    return {
        "tables": {source.table: table(source) for source in message_tables()},
        "indexes": indexes(),
        "model": model,
        "configured_model": configured,
        "min_similarity": min_similarity.min_similarity(model or configured or ""),
    }


def table(source: MessageTable) -> dict[str, Any]:
    """``{"with", "without", "failed", "percent"}`` of the table's messages that may be remembered. One statement.

    With: a vector of the database's model; failed: set aside by the backfill; without: all others, which are pending.
    """
    ((all_of_them, embedded, failed),) = db.execute(pending.for_table(COUNT, source), {})
    without = all_of_them - embedded - failed
    return {
        "with": embedded,
        "without": without,
        "failed": failed,
        "percent": percent(embedded, all_of_them),
    }


def percent(part: int, whole: int) -> float:
    """To two decimals, 100 for nothing at all; never 100 while something is missing."""
    if part == whole:
        return 100.0
    return min(round(100 * part / whole, 2), 99.99)


def indexes() -> list[dict[str, Any]]:
    """Memory's indexes, INVALID ones that a build has left among them: name, table, size, validity, scans.

    One that the models declare and that is not there has size 0, is not valid, and ``missing``. One statement.
    """
    tables = [*(source.table for source in message_tables()), MEMORIES]
    found = [
        {
            "name": name,
            "table": table,
            "size_bytes": size,
            "valid": valid,
            "scans": scans,
            "missing": False,
        }
        for name, table, size, valid, scans in db.execute(
            INDEXES, {"tables": tables, "memories": MEMORIES}
        )
    ]
    there = {one["name"] for one in found}
    return found + [
        {
            "name": name,
            "table": source.table,
            "size_bytes": 0,
            "valid": False,
            "scans": 0,
            "missing": True,
        }
        for source, name in declared_indexes()
        if name not in there
    ]


def lines(found: dict[str, Any]) -> list[str]:
    """The same for people."""
    least = found["min_similarity"]
    width = max(
        len(name) for name in [*found["tables"], *(one["name"] for one in found["indexes"])]
    )
    return [
        f"Model: {found['model'] or 'none yet'}{_differs(found)}",
        f"RAG_MIN_SIMILARITY: {least:.2f}{' (nothing is left out)' if least == -1 else ''}",
        "",
        f"{'':{width}}  {'with':>11}  {'without':>11}  {'failed':>9}  {'percent':>8}",
        *(_table_line(name, counts, width) for name, counts in found["tables"].items()),
        "",
        f"{'':{width}}  {'MB':>11}  {'times used':>11}",
        *(_index_line(one, width) for one in found["indexes"]),
    ]


def _differs(found: dict[str, Any]) -> str:
    if found["model"] is None or found["configured_model"] in (None, found["model"]):
        return ""
    return f"; EMBEDDING_MODEL is {found['configured_model']}: run manage.py rag_model"


def _table_line(name: str, counts: dict[str, Any], width: int) -> str:
    numbers = f"{counts['with']:>11,}  {counts['without']:>11,}  {counts['failed']:>9,}"
    return f"{name:{width}}  {numbers}  {counts['percent']:>7.2f}%"


def _index_line(one: dict[str, Any], width: int) -> str:
    line = f"{one['name']:{width}}  {one['size_bytes'] / 1e6:>11,.1f}  {one['scans']:>11,}"
    if one["missing"]:
        return f"{line}  missing: manage.py rag_index create hnsw"
    return line if one["valid"] else f"{line}  INVALID: manage.py rag_index rebuild, or migrate"
