"""What a client of the OpenAI API means: chats by its own ids, messages by digests of their texts.

Lock: SHARE ROW EXCLUSIVE on standalone_chats for under a millisecond; SHARE UPDATE EXCLUSIVE on
standalone_chat_messages while the index is built or dropped, so reads and writes go on; it waits
for open transactions. Duration: of the index, 5 s for a million messages. Back: drops both; a
client's next turn then begins a new chat. Stopped half-way: run migrate again; servers of this
version use each as soon as it is there.
"""

from pathlib import Path

from django.db import migrations, models

from retrieval.schema.operations import CreateIndex, RunSqlFiles

SQL = Path(__file__).with_name("sql")


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0014_imports")]
    operations = [
        migrations.CreateModel(
            name="ClientChat",
            fields=[
                ("id", models.BigAutoField(primary_key=True, serialize=False)),
                ("user_id", models.BigIntegerField()),
                ("client_id", models.TextField()),
                ("chat_id", models.BigIntegerField()),
            ],
            options={"db_table": "client_chats", "managed": False},
        ),
        RunSqlFiles(
            "Create the table of clients' own ids",
            "standalone_chats",
            [(SQL / "0015_client_chats.sql", None)],
            backward=[(SQL / "0015_backward.sql", None)],
        ),
        CreateIndex("standalone_messages_digest", SQL / "0015_index.sql"),
    ]
