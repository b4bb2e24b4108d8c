"""The state of memory: messages by table, indexes, the model, the required similarity."""

from pathlib import Path
from typing import Any

from django.conf import settings
from psycopg import sql

from retrieval import current_model, db, log_counts, usage_report
from retrieval.backfill.pending import for_table
from retrieval.embeddings import embedding_service
from retrieval.message_tables import HAS_TEXT, MessageTable
from retrieval.models import MessageMemory, message_tables, recalled_tables
from retrieval.recall import min_similarity
from retrieval.reindex.index_state import declared_indexes
from retrieval.rollout import rollout_report
from retrieval.sql_files import read_statement

COUNT = read_statement(Path(__file__).with_name("count_messages.sql"))
# The same without a condition: four times as slow for 1,000,000 messages. Only ids are joined, no
# texts and no wide rows. Locks nothing.
COUNT_BY_ROW = sql.SQL("""
    WITH current_model AS (SELECT id FROM embedding_models WHERE current)
    SELECT count(*), count(embedded.id), count(failed.id)
    FROM (
        SELECT m.id * 2 + {kind_bit} AS id FROM {table} m WHERE m.content <> '' AND {remembered}
    ) m LEFT JOIN (
        SELECT id FROM message_memories
        WHERE (id & 1) = {kind_bit} AND model = (SELECT id FROM current_model)
    ) embedded USING (id) LEFT JOIN (
        SELECT id FROM message_memories WHERE embedding_error IS NOT NULL
            AND (model IS NULL OR model IS DISTINCT FROM (SELECT id FROM current_model))
    ) failed USING (id)
""")
# idx_scan: since the statistics were last reset. Locks nothing.
INDEXES = """
    SELECT c.relname, t.relname, pg_catalog.pg_relation_size(c.oid), i.indisvalid,
        coalesce(s.idx_scan, 0)
    FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class c ON c.oid = i.indexrelid
    JOIN pg_catalog.pg_class t ON t.oid = i.indrelid JOIN pg_catalog.pg_am a ON a.oid = c.relam
    LEFT JOIN pg_catalog.pg_stat_all_indexes s ON s.indexrelid = c.oid
    WHERE t.oid = ANY (
            SELECT pg_catalog.to_regclass(name) FROM pg_catalog.unnest(%(tables)s::text[]) name)
        AND (a.amname = 'hnsw' OR t.oid = pg_catalog.to_regclass(%(memories)s))
    ORDER BY t.relname, c.relname
"""

# pg_table_size: with its long texts and vectors, which are stored apart. Locks nothing.
SIZES = """
    SELECT name, pg_catalog.pg_table_size(pg_catalog.to_regclass(name)),
        pg_catalog.pg_indexes_size(pg_catalog.to_regclass(name))
    FROM pg_catalog.unnest(%(tables)s::text[]) name
    WHERE pg_catalog.to_regclass(name) IS NOT NULL
"""


def collect() -> dict[str, Any]:
    """What ``rag_status --json`` prints, without messages that are switched off.

    At most seventeen statements, two of which read the message tables. Raises NoMemory.
    """
    model, configured = current_model.current_model(), embedding_service.configured_name()
    return {
        "tables": {table.table: count_messages(table) for table in message_tables()},
        "sizes": sizes(),
        "indexes": indexes(),
        "usage": usage_report.collect(),
        "log": log_counts.report(),
        "rollout": rollout_report.collect(),
        "version": settings.VERSION,
        "model": model,
        "configured_model": configured,
        "min_similarity": min_similarity.min_similarity(model or configured or ""),
    }


def sizes() -> dict[str, dict[str, int]]:
    """``{"table_bytes", "index_bytes"}`` of both message tables and recall's. One statement."""
    tables = [*(table.table for table in message_tables()), MessageMemory._meta.db_table]
    rows = db.execute(SIZES, {"tables": tables})
    return {name: {"table_bytes": table, "index_bytes": index} for name, table, index in rows}


def count_messages(table: MessageTable) -> dict[str, Any]:
    """``{"with", "without", "failed", "percent"}`` of the table's messages. One statement.

    "with" a vector of the current model; "failed": set aside by the backfill; "without": the
    others, among them tainted answers, which are not embedded.
    A second statement if a vector has no row with its model, as before the first backfill.
    """
    ((total, embedded, failed, every_vector_has_model),) = db.execute(count_statement(table), {})
    if not every_vector_has_model:
        ((total, embedded, failed),) = db.execute(for_table(COUNT_BY_ROW, table), {})
    return {
        "with": embedded,
        "without": total - embedded - failed,
        "failed": failed,
        "percent": percent(embedded, total),
    }


def count_statement(table: MessageTable) -> sql.Composed:
    """The statement of ``count_messages``; a test compares it with COUNT_BY_ROW."""
    return for_table(COUNT, table, has_text=HAS_TEXT)


def percent(part: int, whole: int) -> float:
    """With two decimals; 100 if ``whole`` is 0, but never 100 while a message is missing."""
    if part == whole:
        return 100.0
    return min(round(100 * part / whole, 2), 99.99)


def indexes() -> list[dict[str, Any]]:
    """Memory's indexes: the INVALID ones of aborted builds too, and declared ones that are missing.

    ``{"name", "table", "size_bytes", "valid", "scans", "missing"}`` each. One statement.
    """
    memories = MessageMemory._meta.db_table
    rows = db.execute(INDEXES, {"tables": recalled_tables(), "memories": memories})
    names = {name for name, *_ in rows}
    missing = [
        (index.name, table.table, 0, False, 0)
        for table, index in declared_indexes()
        if index.name not in names
    ]
    return [
        {
            "name": name,
            "table": table,
            "size_bytes": size_bytes,
            "valid": valid,
            "scans": scans,
            "missing": name not in names,
        }
        for name, table, size_bytes, valid, scans in [*rows, *missing]
    ]


def lines(report: dict[str, Any]) -> list[str]:
    """``collect()`` as text."""
    minimum = report["min_similarity"]
    names = [*report["tables"], *(index["name"] for index in report["indexes"])]
    width = max(map(len, names))
    return [
        f"Model: {report['model'] or 'none yet'}{_model_warning(report)}",
        f"RAG_MIN_SIMILARITY: {minimum:.2f}{' (nothing is left out)' if minimum == -1 else ''}",
        f"Version: {report['version']}",
        "",
        f"{'':{width}}  {'with':>11}  {'without':>11}  {'failed':>9}  {'percent':>8}",
        *(_table_line(name, counts, width) for name, counts in report["tables"].items()),
        "",
        f"{'':{width}}  {'MB':>11}  {'times used':>11}",
        *(_index_line(index, width) for index in report["indexes"]),
        "",
        f"{'':{width}}  {'MB':>11}  {'indexes, MB':>11}",
        *(_size_line(name, size, width) for name, size in report["sizes"].items()),
        "",
        *usage_report.lines(report["usage"]),
        "",
        *rollout_report.lines(report["rollout"]),
        "",
        *log_counts.lines(report["log"]),
    ]


def _model_warning(report: dict[str, Any]) -> str:
    if report["model"] is None or report["configured_model"] in (None, report["model"]):
        return ""
    return f"; EMBEDDING_MODEL is {report['configured_model']}: run manage.py rag_model"


def _table_line(name: str, counts: dict[str, Any], width: int) -> str:
    numbers = f"{counts['with']:>11,}  {counts['without']:>11,}  {counts['failed']:>9,}"
    return f"{name:{width}}  {numbers}  {counts['percent']:>7.2f}%"


def _size_line(name: str, size: dict[str, int], width: int) -> str:
    table_mb, index_mb = size["table_bytes"] / 1e6, size["index_bytes"] / 1e6
    return f"{name:{width}}  {table_mb:>11,.1f}  {index_mb:>11,.1f}"


def _index_line(index: dict[str, Any], width: int) -> str:
    line = f"{index['name']:{width}}  {index['size_bytes'] / 1e6:>11,.1f}  {index['scans']:>11,}"
    if index["missing"]:
        return f"{line}  missing: manage.py rag_index create hnsw"
    return line if index["valid"] else f"{line}  INVALID: manage.py rag_index rebuild, or migrate"
