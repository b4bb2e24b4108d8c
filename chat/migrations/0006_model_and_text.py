"""Triggers that keep an embedding's model, and words of other languages: recall's structures as they are today.

A fresh database has all of it since 0003; this brings one up that was migrated before. Lock: ACCESS EXCLUSIVE on
message_memories and SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for
300 ms at a time with pauses. Back: nothing to do, 0003 takes all of it away. Half-way: migrate again. Rows that are
there keep the words they have until backfill_embeddings makes them anew.
"""

from django.db import migrations

from retrieval.schema.operations import AddRecallAnew, FollowTableAnew


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0005_backfill")]
    operations = [
        AddRecallAnew(),
        FollowTableAnew(0, "standalone_chat_messages", "chat_id"),
        FollowTableAnew(1, "chat_messages", "passage_id"),
    ]
