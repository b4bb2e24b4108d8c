"""Two tables of the tokens that turns use: by user and day, and of all users by day.

Lock: none on a table that exists, so old code goes on. Back: drops both, with ACCESS EXCLUSIVE on
them alone; then no limit of tokens holds. Stopped half-way: run migrate again. What turns used
before has not been counted.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0016_rollout")]
    operations = [
        RunSqlFiles(
            "Create the tables of tokens",
            "user_token_usage",
            [(SQL / "0017_token_usage.sql", None)],
            backward=[(SQL / "0017_backward.sql", None)],
        ),
    ]
