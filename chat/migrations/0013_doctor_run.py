"""A table with the last run of the doctor, for the admin's page.

Lock: none on a table that exists, so old code goes on. Back: drops the table, with ACCESS EXCLUSIVE
on it alone. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0012_message_lists")]
    operations = [
        RunSqlFiles(
            "Create the table of the doctor's last run",
            "doctor_run",
            [(SQL / "0013_doctor_run.sql", None)],
            backward=[(SQL / "0013_backward.sql", None)],
        ),
    ]
