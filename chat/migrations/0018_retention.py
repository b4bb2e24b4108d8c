"""Two tables for RETENTION_DAYS: conversations that users keep, and when it was run.

Lock: SHARE ROW EXCLUSIVE on standalone_chats and passages, for the foreign keys, for under a
millisecond. Back: drops both, with ACCESS EXCLUSIVE on them and on these two tables; then nothing
expires, and what users keep is forgotten. Stopped half-way: run migrate again; servers of this
version use each as soon as it is there.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0017_token_usage")]
    operations = [
        RunSqlFiles(
            "Create the tables of retention",
            "standalone_chats",
            [(SQL / "0018_retention.sql", None)],
            backward=[(SQL / "0018_backward.sql", None)],
        ),
    ]
