"""Two tables for workers that embed: which process embeds which message, and their common rate.

Lock: none on a table that exists, so old code goes on. Back: drops both, with ACCESS EXCLUSIVE on
them alone; a worker that runs then stops with one line. Stopped half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False
    dependencies = [("chat", "0018_retention")]
    operations = [
        RunSqlFiles(
            "Create the tables of claims and of the rate",
            "embedding_claims",
            [(SQL / "0019_embed_queue.sql", None)],
            backward=[(SQL / "0019_backward.sql", None)],
        ),
    ]
