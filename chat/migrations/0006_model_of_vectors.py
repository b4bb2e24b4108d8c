"""Triggers that keep an embedding's model when anything but the embedding is written, and that nobody else can use.

Lock: SHARE ROW EXCLUSIVE on one table of messages after the other, some milliseconds each, waited for 300 ms at a time
with pauses. Back: nothing to do, earlier code needs no other. Half-way: migrate again.
"""

from django.db import migrations

from retrieval.operations import FollowTableAnew


class Migration(migrations.Migration):
    atomic = False  # one table a transaction
    dependencies = [("chat", "0005_backfill")]
    operations = [
        FollowTableAnew(0, "standalone_chat_messages", "chat_id"),
        FollowTableAnew(1, "chat_messages", "passage_id"),
    ]
