"""A table of who saw or changed what, and the permission to see contents in the admin.

Lock: none on a table that exists, so old code goes on. Back: drops the table with its lines, with
ACCESS EXCLUSIVE on it alone. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0010_recall_messages")]
    operations = [
        RunSqlFiles(
            "Create the audit log",
            "audit_log",
            [(SQL / "0011_audit_log.sql", None)],
            backward=[(SQL / "0011_backward.sql", None)],
        ),
        migrations.AlterModelOptions(
            name="standalonechat",
            options={
                "permissions": [
                    ("view_content", "Can see what others have written; each view is logged")
                ]
            },
        ),
    ]
