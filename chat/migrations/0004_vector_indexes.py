"""An HNSW index on the embeddings of each table of messages, built while everybody goes on.

Lock: SHARE UPDATE EXCLUSIVE on one table after the other, for as long as the build takes: reads and writes go on; it
waits for the transactions that are open. Back: drops them, as gently. Half-way: it leaves an INVALID index, which
migrate, run again, replaces.
"""

from django.db import migrations

from retrieval.schema.indexes import AddVectorIndex, VectorIndex


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0003_recall")]
    operations = [
        AddVectorIndex(
            "standalonechatmessage", VectorIndex(name="idx_standalone_messages_embedding")
        ),
        AddVectorIndex("chatmessage", VectorIndex(name="idx_chat_messages_embedding_user")),
    ]
