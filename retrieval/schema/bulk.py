"""Many messages of one transaction into recall's table: their words worked out in parallel, and indexed by sets.

The trigger ``memory_insert`` works out one row after the other. Who adds many messages may call ``defer_memory_insert`` before and
``insert_memories`` after, in one transaction. Why so, and its figures: docs/decisions/0009-recall-structures.md.
"""

from django.db import connection

from retrieval.message_tables import MessageTable

IDS_AT_ONCE = (
    50_000  # a statement; some 20 MB of rows lie on disk between their making and their insertion
)


def defer_memory_insert() -> None:
    """Let no trigger learn what this transaction adds from now on: ``insert_memories`` will. One statement.

    Triggers from before migration 0006 take no notice, nor does a schema without memory.
    """
    with connection.cursor() as cursor:
        cursor.execute("SET LOCAL verse.defer_memory_insert = on")


def insert_memories(source: MessageTable, first: int, last: int) -> None:
    """Learn the messages with these ids that this transaction added outside savepoints: found by words once it ends.

    One statement for each 50,000 ids, in parallel where the server has workers to spare. Unlike a trigger's, its
    errors are the caller's. Where the schema has no such function, its triggers learnt them, or it has no memory.
    """
    name = f"{source.table}_insert_memories"
    with connection.cursor() as cursor:
        cursor.execute("SELECT to_regprocedure(%s) IS NULL", [f"{name}(bigint, bigint)"])
        if cursor.fetchone()[0]:
            return
        for start in range(first, last + 1, IDS_AT_ONCE):
            cursor.execute(f"SELECT {name}(%s, %s)", [start, min(start + IDS_AT_ONCE - 1, last)])
