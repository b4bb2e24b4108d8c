"""A table of what embedding costs by user; embedding_usage keeps the totals.

Lock: none on a table that exists, so old code goes on. Back: drops the table, with ACCESS EXCLUSIVE
on it alone. Stopped half-way: run migrate again. Usage from before has no user.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0005_memory")]
    operations = [
        RunSqlFiles(
            "Create the table of usage by user",
            "user_embedding_usage",
            [(SQL / "0006_usage.sql", None)],
            backward=[(SQL / "0006_backward.sql", None)],
        ),
    ]
