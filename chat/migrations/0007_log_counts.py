"""A table of how many errors the servers log, by kind and minute.

Lock: none on a table that exists, so old code goes on. Back: drops the table, with ACCESS EXCLUSIVE
on it alone. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0006_usage")]
    operations = [
        RunSqlFiles(
            "Create the table of logged errors",
            "log_counts",
            [(SQL / "0007_log_counts.sql", None)],
            backward=[(SQL / "0007_backward.sql", None)],
        ),
    ]
