"""Functions by which recall learns many messages at once, and an index of terms that takes them many at a time.

A fresh database has all of it since 0003; this brings one up that was migrated before. Lock: ACCESS EXCLUSIVE on
message_memories and SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for
300 ms at a time with pauses. Back: nothing to do, 0003 takes all of it away. Half-way: migrate again.
"""

from django.db import migrations

from retrieval.schema.operations import AddRecallAnew, FollowTableAnew


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0006_model_and_text")]
    operations = [
        AddRecallAnew(),
        FollowTableAnew(0, "standalone_chat_messages", "chat_id"),
        FollowTableAnew(1, "chat_messages", "passage_id"),
    ]
