"""Words of other languages: accents, scripts without spaces, the text configuration as a row in the database.

A fresh database has all of it since 0003; this brings one up that was migrated before. Lock: ACCESS EXCLUSIVE on
message_memories and SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for
300 ms at a time with pauses. Back: nothing to do, 0003 takes all of it away. Half-way: migrate again. Rows that are
there keep the words they have until backfill_embeddings makes them anew.
"""

from django.db import migrations

from retrieval.operations import UpdateFollowing, UpdateRecall


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0005_backfill")]
    operations = [
        UpdateRecall(),
        UpdateFollowing(0, "standalone_chat_messages", "chat_id"),
        UpdateFollowing(1, "chat_messages", "passage_id"),
    ]
