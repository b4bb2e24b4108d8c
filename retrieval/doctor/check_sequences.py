"""The sequences behind the message ids.

A dump that is run into a live database restores nothing, since every row exists already. But its
setval() succeeds, and the next messages fail with a duplicate id.
"""

from psycopg import sql

from retrieval.doctor.fixes import statement
from retrieval.doctor.report import Check, Finding, failed, passed
from retrieval.models import message_tables
from retrieval.queries import row, value

SEQUENCE = """
    SELECT n.nspname, c.relname FROM pg_catalog.pg_class c
    JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace
    WHERE c.oid = pg_catalog.pg_get_serial_sequence(%s, 'id')::pg_catalog.regclass
"""
LARGEST_ID = sql.SQL("SELECT coalesce(max(id), 0) FROM {table}")
# Read from the sequence itself: the view pg_sequences would lock it as a writer does.
LAST_ID = sql.SQL("""
    SELECT CASE WHEN is_called THEN last_value ELSE last_value - 1 END FROM {sequence}
""")
# Locks: ROW EXCLUSIVE on the sequence, so inserts go on.
ADVANCE = sql.SQL("SELECT setval({sequence}, (SELECT max(id) FROM {table}))")


def sequences_are_ahead() -> Finding:
    """The sequence behind the ids of each message table, and the largest id."""
    problems, fixes = [], []
    for table in message_tables():
        # The largest id first: a message that is added meanwhile moves only the sequence.
        largest = value(LARGEST_ID.format(**table.names))
        sequence = sql.Identifier(*row(SEQUENCE, [table.table]))
        last = value(LAST_ID.format(sequence=sequence))
        if last < largest:
            problems.append(
                f"{table.table}: the next id would be {last + 1:,}, the largest is {largest:,}"
            )
            name = sql.Literal(sequence.as_string())
            fixes.append(statement(ADVANCE.format(sequence=name, **table.names)))
    if problems:
        return failed("a dump was run into this database: " + "; ".join(problems), *fixes)
    return passed("the sequences are ahead of the ids: no dump has been run into this database")


def checks() -> list[Check]:
    return [Check("trap.9", sequences_are_ahead)]
