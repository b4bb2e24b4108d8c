"""Two tables for rag_rollout: its state, and the times of recall.

Lock: none on a table that exists, so old code goes on. Back: drops both, with ACCESS EXCLUSIVE on
them alone; then every user is given memories. Stopped half-way: run migrate again; servers of this
version use each table as soon as it is there.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0015_client_chats")]
    operations = [
        RunSqlFiles(
            "Create the tables of the rollout",
            "rag_rollout",
            [(SQL / "0016_rollout.sql", None)],
            backward=[(SQL / "0016_backward.sql", None)],
        ),
    ]
