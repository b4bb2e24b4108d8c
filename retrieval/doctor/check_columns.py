"""The column ``embedding`` of both message tables."""

from django.db import connection
from django.db.migrations.recorder import MigrationRecorder
from psycopg import sql

from retrieval.doctor.check_migrations import memory_apps
from retrieval.doctor.database import memory_exists, vector_schema
from retrieval.doctor.expected_schema import of_tables
from retrieval.doctor.fixes import BACKFILL, MIGRATE, NO_WAIT, WAIT_AGAIN, create, statement
from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.message_tables import MessageTable
from retrieval.models import message_tables
from retrieval.queries import rows, value
from retrieval.vectors import DIMENSIONS

WANTED = f"vector({DIMENSIONS})"
# trap.13: information_schema gives USER-DEFINED as the type.
COLUMN = """
    SELECT pg_catalog.format_type(atttypid, atttypmod), attnotnull FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(%s) AND attname = 'embedding' AND NOT attisdropped
"""
# Columns that an earlier fix has renamed.
RENAMED = """
    SELECT count(*) FROM pg_catalog.pg_attribute
    WHERE attrelid = pg_catalog.to_regclass(%s) AND attname ~ '^embedding_before'
        AND NOT attisdropped
"""
ADD_COLUMN = sql.SQL("ALTER TABLE {table} ADD COLUMN embedding {vector}.vector({dimensions})")
RENAME = sql.SQL("ALTER TABLE {table} RENAME embedding TO {new_name}")
ALLOW_NULL = sql.SQL("ALTER TABLE {table} ALTER embedding DROP NOT NULL")


def columns_are_right() -> Finding:
    """Type and nullability of both columns."""
    if not memory_exists():
        return failed("memory has not been added to this database", MIGRATE)
    vector_schema()  # raises VectorUnavailable
    columns = {table: _column_of(table) for table in message_tables()}
    fixes = [line for table, column in columns.items() for line in _fix(table, column)]
    detail = ", ".join(f"{table.table}: {column}" for table, column in columns.items())
    if fixes:
        return failed(f"the column embedding is not as it should be: {detail}", *fixes)
    return passed(detail)


def _column_of(table: MessageTable) -> str:
    """Its type without the extension's schema, and NOT NULL; "missing" if there is no column."""
    for type_name, not_null in rows(COLUMN, [table.table]):
        return str(type_name).rpartition(".")[2] + (" NOT NULL" if not_null else "")
    return "missing"


def _fix(table: MessageTable, column: str) -> list[str]:
    """Locks: ACCESS EXCLUSIVE for an instant, as nothing is rewritten."""
    add = statement(
        ADD_COLUMN.format(vector=vector_schema(), dimensions=sql.Literal(DIMENSIONS), **table.names)
    )
    if column == WANTED:
        return []
    if column == "missing":
        return [NO_WAIT, add, WAIT_AGAIN]
    if column == f"{WANTED} NOT NULL":
        return [NO_WAIT, statement(ALLOW_NULL.format(**table.names)), WAIT_AGAIN]
    new_name = sql.Identifier(f"embedding_before_{value(RENAMED, [table.table]) + 1}")
    rename = statement(RENAME.format(new_name=new_name, **table.names))
    triggers = [
        create(trigger)
        for trigger in of_tables("TRIGGER")
        if trigger.table == table.table and "embedding" in trigger.statement
    ]
    return [NO_WAIT, "BEGIN;", rename, add, *triggers, "COMMIT;", WAIT_AGAIN]


def no_column_dropped_by_cascade() -> Finding:
    """Columns that are missing although their migration is applied."""
    missing = [table for table in message_tables() if not rows(COLUMN, [table.table])]
    if missing and _memory_is_migrated():
        names = ", ".join(table.table for table in missing)
        return failed(
            f"embedding of {names} was dropped, though its migration is applied. Messages are "
            "kept; the backfill embeds them again",
            f"{MIGRATE} {min(memory_apps())} 0001_initial",
            MIGRATE,
            BACKFILL,
        )
    columns = [f"{table.table}.embedding" for table in message_tables() if table not in missing]
    if not columns:
        return passed("no column depends on the extension")
    return passed(
        f"CASCADE would drop {', '.join(columns)}: migrate back first, then drop the extension "
        "without CASCADE"
    )


def _memory_is_migrated() -> bool:
    """Whether a migration after the first of each app is applied. One query."""
    apps = memory_apps()
    applied = MigrationRecorder(connection).applied_migrations()
    return len([app for app, _ in applied if app in apps]) > len(apps)


def checks() -> list[Check]:
    return [
        Check("trap.13", columns_are_right),
        Check("trap.12", no_column_dropped_by_cascade),
    ]
