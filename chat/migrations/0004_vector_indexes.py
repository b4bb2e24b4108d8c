"""An HNSW index on the embeddings of each message table, built while reads and writes go on.

Lock: SHARE UPDATE EXCLUSIVE on one table after the other for as long as the build takes; it waits
for the transactions that are open. Back: drops them with the same lock. Stopped half-way: leaves an
INVALID index, which the next migrate replaces.
"""

from django.db import migrations

from retrieval.schema.indexes import VectorIndex
from retrieval.schema.operations import AddVectorIndex


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [("chat", "0002_embedding")]
    operations = [
        AddVectorIndex(
            "standalonechatmessage", VectorIndex(name="idx_standalone_messages_embedding")
        ),
        AddVectorIndex("chatmessage", VectorIndex(name="idx_chat_messages_embedding_user")),
    ]
