"""A table of what was forgotten, kept by the triggers: what repeats it is found forward, once, not at each recall.

A fresh database has all of it since 0003; this brings one up that was migrated before, and notes which of the messages
that recall knows may repeat one that went until then: 0.4 s for 20,000, without a lock. Lock: ACCESS EXCLUSIVE on
message_memories and SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for
300 ms at a time with pauses. Back: nothing to do, 0003 takes all of it away. Half-way: migrate again.
"""

from django.db import migrations

from retrieval.schema.operations import AddRecallAnew, FollowTableAnew, NoteLost


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0007_import")]
    operations = [
        AddRecallAnew(),
        FollowTableAnew(0, "standalone_chat_messages", "chat_id"),
        FollowTableAnew(1, "chat_messages", "passage_id"),
        NoteLost(0, "standalone_chat_messages"),
        NoteLost(1, "chat_messages"),
    ]
