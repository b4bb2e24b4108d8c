"""Insert many messages of one transaction into memory: words in parallel, index in large steps.

The trigger ``memory_insert`` computes one row after the other. An import calls
``defer_memory_insert`` before it inserts messages and ``insert_memories`` after, in the same
transaction. Figures: docs/decisions/0009-recall-structures.md.
"""

from psycopg import sql

from retrieval.message_tables import MessageTable
from retrieval.queries import execute, value

MAX_IDS = 50_000  # a statement; it writes some 20 MB of rows to disk before it inserts them


def defer_memory_insert() -> None:
    """Keep the triggers from inserting what this transaction adds from now on. One statement.

    Triggers of older schemas ignore it and insert; there ``insert_memories`` does nothing.
    """
    execute("SET LOCAL verse.defer_memory_insert = on")


def insert_memories(table: MessageTable, first: int, last: int) -> None:
    """Insert the messages with these ids that this transaction added outside savepoints.

    One statement for each MAX_IDS ids, in parallel where the server has free workers. Errors are
    raised, unlike a trigger's. Does nothing where the schema has no memory or is older.
    """
    function = f"{table.table}_insert_memories"
    statement = sql.SQL("SELECT {}(%s, %s)").format(sql.Identifier(function))
    if value("SELECT to_regprocedure(%s) IS NULL", [f"{function}(bigint, bigint)"]):
        return
    for start in range(first, last + 1, MAX_IDS):
        execute(statement, [start, min(start + MAX_IDS - 1, last)])
