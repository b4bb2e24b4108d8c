"""Recall's own table, and the triggers by which it follows the messages, whoever writes them.

Lock: SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for 300 ms at a time
with pauses. Back: drops triggers, functions and tables, with ACCESS EXCLUSIVE as short. Half-way: migrate again.
Messages that are there already are taken up by backfill_embeddings.
"""

from django.db import migrations

from retrieval.schema.operations import AddRecall, FollowTable


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0002_embedding")]
    operations = [
        AddRecall(),
        FollowTable(0, "standalone_chat_messages", "chat_id"),
        FollowTable(1, "chat_messages", "passage_id"),
    ]
