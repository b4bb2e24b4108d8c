"""The SQL files of memory's schema, composed for one database."""

from pathlib import Path

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval.message_tables import MessageTable
from retrieval.queries import value
from retrieval.schema import extension

CURRENT = Path(__file__).with_name("current.sql")
CURRENT_RECALL = Path(__file__).with_name("current_recall.sql")
CURRENT_TRIGGERS = Path(__file__).with_name("current_triggers.sql")
TABLE_FUNCTIONS = (
    "memory_insert",
    "memory_update",
    "memory_embedding",
    "memory_delete",
    "clear_stale_embedding",
    "new_memories",
    "insert_memories",
)


def compose(
    connection: BaseDatabaseWrapper,
    file: Path,
    table: MessageTable | None = None,
    *,
    concurrently: bool = False,
) -> list[str]:
    """The file's statements, for ``table`` where the file is about one message table.

    ``concurrently``: indexes are built without blocking writes, which no transaction can do.

    An empty line ends a statement; comment lines before it are left out. At most two queries.
    Raises VectorUnavailable if the file names the extension's schema and the extension is missing.
    """
    text = file.read_text().strip()
    names = _schema_names(connection, text)
    names["concurrently"] = sql.SQL("CONCURRENTLY " if concurrently else "")
    if table is not None:
        names |= _table_names(table, names["schema"])
    blocks = (_without_leading_comments(block) for block in text.split("\n\n"))
    return [sql.SQL(block).format(**names).as_string() for block in blocks if block]


def _schema_names(connection: BaseDatabaseWrapper, text: str) -> dict[str, sql.Composable]:
    """The schema of the tables, quoted, is the one where the session creates new ones."""
    schema = value(
        "SELECT pg_catalog.quote_ident(pg_catalog.current_schema())", connection=connection
    )
    names: dict[str, sql.Composable] = {"schema": sql.SQL(schema)}
    if "{vector}" in text:
        names["vector"] = extension.schema(connection)
    return names


def _table_names(table: MessageTable, schema: sql.Composable) -> dict[str, sql.Composable]:
    functions = {
        name: sql.SQL(".").join([schema, sql.Identifier(f"{table.table}_{name}")])
        for name in TABLE_FUNCTIONS
    }
    return functions | table.names


def _without_leading_comments(block: str) -> str:
    lines = block.splitlines()
    while lines and lines[0].startswith("--"):
        lines.pop(0)
    return "\n".join(lines)
