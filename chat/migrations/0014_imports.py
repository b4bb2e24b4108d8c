"""Two tables: what users import, and which messages came with each import.

Lock: none on a table that exists, so old code goes on. Back: drops both, with ACCESS EXCLUSIVE on
them alone; what was imported stays. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0013_doctor_run")]
    operations = [
        RunSqlFiles(
            "Create the tables of imports",
            "memory_imports",
            [(SQL / "0014_imports.sql", None)],
            backward=[(SQL / "0014_backward.sql", None)],
        ),
    ]
