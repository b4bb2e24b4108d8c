"""What backfill_embeddings needs: reasons of rows set aside, indexes on recall's table, a table of what calls cost.

Lock: none on the tables of messages. On message_memories ACCESS EXCLUSIVE, under a millisecond, waited for 300 ms at a
time with pauses; then SHARE UPDATE EXCLUSIVE while the indexes are built: recall and writes go on. Back: drops them,
as gently. Half-way: migrate again.
"""

from django.db import migrations

from retrieval.schema.operations import AddBackfill


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0004_vector_indexes")]
    operations = [AddBackfill()]
