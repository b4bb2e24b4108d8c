"""Recall's functions, and an index that holds all that they read of a message.

The index takes the place of message_memories_bits. Code from before, which goes on with its own
statement while a rollout runs, reads its bits from the new index as fast. message_memories_turns
stays for that code alone, until a later migration: without it each neighbour would be looked for in
the whole table. Figures: docs/decisions/0009-recall-structures.md.

Lock: SHARE UPDATE EXCLUSIVE on message_memories while an index is built or dropped, so recall and
writes go on; it waits for open transactions. The functions lock no table. Back: builds the old
index, then drops the functions and the new one. Stopped half-way: run migrate again; recall works
in between, servers call the functions once they are there.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import CreateIndex, DropIndex, RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0007_log_counts")]
    operations = [
        CreateIndex("message_memories_recall", SQL / "0008_index.sql"),
        RunSqlFiles(
            "Create recall's functions",
            "message_memories",
            [(SQL / "0008_functions.sql", None)],
            backward=[(SQL / "0008_backward.sql", None)],
        ),
        DropIndex("message_memories_bits", SQL / "0008_old_index.sql"),
    ]
