"""A table with the latest write of each user: which replica may be read for whom.

Lock: none on a table that exists, so old code goes on. Back: drops it, with ACCESS EXCLUSIVE on it
alone; servers then read from the primary. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0019_embed_queue")]
    operations = [
        RunSqlFiles(
            "Create the table of users' latest writes",
            "user_writes",
            [(SQL / "0020_user_writes.sql", None)],
            backward=[(SQL / "0020_backward.sql", None)],
        ),
    ]
