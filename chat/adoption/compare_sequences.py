"""Finds sequences that are behind the largest id, or that are not owned by their column."""

from collections.abc import Iterator

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from chat.adoption.catalog import Table, read_sequence
from chat.adoption.differences import Difference, Stage, fixable
from retrieval.queries import row

# Locks nothing.
MAX_ID_AND_LAST_VALUE = sql.SQL("""
    SELECT coalesce((SELECT max({column}) FROM {table}), 0),
        (SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence})
""")
# Lock: SHARE ROW EXCLUSIVE on the table for under a millisecond, so that no id is taken meanwhile.
ADVANCE = sql.SQL("""
    LOCK TABLE {table} IN SHARE ROW EXCLUSIVE MODE;
    SELECT pg_catalog.setval({sequence_text}, largest)
    FROM (SELECT max({column}) AS largest FROM {table}) AS ids, {sequence}
    WHERE largest > CASE WHEN is_called THEN last_value ELSE last_value - 1 END
""")
# Lock: SHARE ROW EXCLUSIVE on the sequence for under a millisecond.
OWN = sql.SQL("ALTER SEQUENCE {sequence} OWNED BY {table}.{column}")


def compare_sequences(
    connection: BaseDatabaseWrapper, wanted: Table, table: Table
) -> Iterator[Difference]:
    """What is wrong with the sequence that gives a table its ids. Two queries if it has one."""
    for column in wanted.columns.values():
        existing = table.columns.get(column.name)
        if not column.identity or existing is None or existing.type != column.type:
            continue
        sequence = read_sequence(connection, table.name, column.name)
        if sequence is None:
            continue
        name = sql.Identifier(sequence.schema, sequence.name)
        names = {
            "table": sql.Identifier(table.name),
            "column": sql.Identifier(column.name),
            "sequence": name,
            "sequence_text": sql.Literal(name.as_string()),
        }
        if not sequence.is_owned:
            problem = f"sequence {sequence.name} does not belong to column {column.name}"
            yield fixable(table.name, problem, Stage.SEQUENCE, [OWN.format(**names)])
        largest, last = row(MAX_ID_AND_LAST_VALUE.format(**names), connection=connection)
        if last < largest:
            problem = f"the next id would be {last + 1:,}, the largest is {largest:,}"
            yield fixable(table.name, problem, Stage.SEQUENCE, [ADVANCE.format(**names)])
