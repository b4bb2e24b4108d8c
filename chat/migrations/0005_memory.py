"""Memory's tables, and triggers that keep them up to date, whichever program writes messages.

It replaces 0003_recall and 0005 to 0008 of earlier states of this repository: it brings a database
that has applied some or all of them to the same schema as a new one. Rows in memory stay in recall.

Lock: ACCESS EXCLUSIVE on memory's own tables if they exist, then SHARE ROW EXCLUSIVE (writes wait)
on one message table after the other; ACCESS EXCLUSIVE where an earlier trigger is dropped. Some
milliseconds each, with a timeout of 300 ms and retries. Indexes are built CONCURRENTLY.
Back: drops triggers, functions and tables, with ACCESS EXCLUSIVE as short. Stopped half-way: run
migrate again. Messages from before are added by backfill_embeddings.
"""

from pathlib import Path

from django.db import migrations

from retrieval.schema.operations import (
    MESSAGE_TABLES,
    BuildIndexes,
    RecordStaleAnswers,
    RemoveMemory,
    RunSqlFiles,
)

SQL = Path(__file__).with_name("sql")
DELETE_REPLACED = """
    DELETE FROM django_migrations WHERE app = 'chat' AND name IN (
        '0003_recall', '0005_backfill', '0006_model_of_vectors', '0006_model_and_text',
        '0007_import', '0008_forgetting')
"""


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0004_vector_indexes")]
    operations = [
        RemoveMemory(SQL),
        # In one transaction: when columns are renamed, earlier triggers call the new functions.
        RunSqlFiles(
            "Create memory's tables and functions",
            "message_memories",
            [
                (SQL / "0005_upgrade.sql", None),
                (SQL / "0005_memory.sql", None),
                *((SQL / "0005_functions.sql", table) for table in MESSAGE_TABLES),
            ],
        ),
        *(
            RunSqlFiles(
                f"Create memory's triggers on {table.table}",
                table.table,
                [(SQL / "0005_triggers.sql", table)],
            )
            for table in MESSAGE_TABLES
        ),
        RunSqlFiles(
            "Drop functions of earlier versions",
            "message_memories",
            [(SQL / "0005_drop_old_functions.sql", None)],
        ),
        BuildIndexes(
            "Build the indexes of the backfill",
            SQL / "0005_indexes.sql",
            ["message_memories_pending", "message_memories_failed"],
        ),
        *(
            RecordStaleAnswers(SQL / "0005_record_stale_answers.sql", table)
            for table in MESSAGE_TABLES
        ),
        # Else rag_doctor takes them for a later version's. Locks: these rows.
        migrations.RunSQL(DELETE_REPLACED, migrations.RunSQL.noop),
    ]
