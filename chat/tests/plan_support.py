"""Shared by tests of plans: what recall has read, as PostgreSQL counts it.

EXPLAIN does not show the statements inside a function; the counters of a transaction include them.
"""

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from django.db import connection, transaction
from psycopg import sql

from retrieval.models import recalled_tables

MESSAGES = {"standalone_chat_messages", "chat_messages"}
MEMORIES = {"message_memories"}
# For each of these tables and its indexes: scans, and rows or entries read. A table's scans are
# sequential ones; its rows are all, whether read so or found by an index.
COUNTERS = """
    WITH t AS (SELECT name::regclass::oid AS oid FROM unnest(%(tables)s::text[]) t (name))
    SELECT oid::regclass::text, pg_stat_get_xact_numscans(oid),
        pg_stat_get_xact_tuples_returned(oid) + pg_stat_get_xact_tuples_fetched(oid)
        + (SELECT sum(pg_stat_get_xact_tuples_fetched(indexrelid)) FROM pg_index
            WHERE indrelid = oid)::int
    FROM t
    UNION ALL
    SELECT indexrelid::regclass::text, pg_stat_get_xact_numscans(indexrelid),
        pg_stat_get_xact_tuples_returned(indexrelid)
    FROM pg_index WHERE indrelid IN (SELECT oid FROM t)
"""

EXPLAIN = sql.SQL("EXPLAIN (ANALYZE, FORMAT JSON) EXECUTE planned ({})")


@dataclass(frozen=True)
class Reads:
    """Scans, and rows or entries read, by the name of a table or index."""

    scans: dict[str, int]
    rows: dict[str, int]

    @property
    def whole_tables(self) -> int:
        """How often a table was read from its first row to its last."""
        return sum(self.scans.get(table, 0) for table in recalled_tables())

    def of(self, *relations: str) -> int:
        """Rows or entries read of these tables and indexes."""
        return sum(self.rows[relation] for relation in relations)

    @property
    def shape(self) -> frozenset[str]:
        """Which tables and indexes were read at all."""
        return frozenset(name for name, scans in self.scans.items() if scans or self.rows[name])


def reads_of(call: Callable[[], object], *, tables: Sequence[str] | None = None) -> Reads:
    """What the call reads of these tables, in a transaction of its own or a savepoint.

    ``tables``: those that recall reads, if not given.
    """
    tables = tables or recalled_tables()
    with transaction.atomic():
        before = _counters(tables)
        call()
        after = _counters(tables)
    return Reads(
        {name: scans - before[name][0] for name, (scans, _) in after.items()},
        {name: rows - before[name][1] for name, (_, rows) in after.items()},
    )


def _counters(tables: Sequence[str]) -> dict[str, tuple[int, int]]:
    with connection.cursor() as cursor:
        cursor.execute(COUNTERS, {"tables": list(tables)})
        return {name: (scans, rows) for name, scans, rows in cursor.fetchall()}


def plan_of(statement: str, params: dict[str, Any]) -> dict[str, Any]:
    """The statement's plan, by the session's ``plan_cache_mode``; the statement is executed."""
    text, values = with_numbered_parameters(statement, params)
    arguments = sql.SQL(", ").join(map(sql.SQL, values))
    with connection.cursor() as cursor:
        cursor.execute("DEALLOCATE ALL")
        cursor.execute(sql.SQL("PREPARE planned AS {}").format(sql.SQL(text)))
        cursor.execute(EXPLAIN.format(arguments))
        (plan,) = cursor.fetchone()
    return dict((json.loads(plan) if isinstance(plan, str) else plan)[0]["Plan"])


def with_numbered_parameters(statement: str, params: dict[str, Any]) -> tuple[str, list[str]]:
    """The statement with $1, $2, …, and the value of each as SQL."""
    names: list[str] = []

    def numbered(match: re.Match[str]) -> str:
        names.append(match[1]) if match[1] not in names else None
        return f"${names.index(match[1]) + 1}"

    text = re.sub(r"%\((\w+)\)[sb]", numbered, statement)
    return text, [literal(params[name]) for name in names]


def literal(value: Any) -> str:
    """The value as PostgreSQL reads it."""
    if isinstance(value, np.ndarray):
        return f"'[{','.join(map(str, value))}]'"
    if isinstance(value, list):
        return "'{" + ",".join(map(str, value)) + "}'"
    return sql.Literal(value).as_string(None)


def rows_read(node: dict[str, Any], tables: set[str]) -> int:
    """How many rows of these tables were fetched, with those that a filter then removed."""
    own = 0
    if node.get("Relation Name") in tables and node["Node Type"] != "Index Only Scan":
        own = (node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"]
    return int(own) + sum(rows_read(child, tables) for child in node.get("Plans", []))
