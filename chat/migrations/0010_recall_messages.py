"""How recall reads messages: each once, in half the time.

recall_messages_2 takes the place of recall_messages_1, which stays for servers of the version
before. Figures: docs/decisions/0009-recall-structures.md.

Lock: none that a statement waits for, and less than 100 ms. Back: drops the new functions; servers
of this version then recall as on the schema before 0008_recall. Stopped half-way: nothing has
changed.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False  # the operation has a transaction of its own
    dependencies = [("chat", "0009_message_terms")]
    operations = [
        RunSqlFiles(
            "Create the functions by which recall reads messages",
            "message_memories",
            [(SQL / "0010_functions.sql", None)],
            backward=[(SQL / "0010_backward.sql", None)],
        ),
    ]
