"""The extension vector, and a nullable column for embeddings in each table of messages.

Lock: ACCESS EXCLUSIVE on one table after the other, under a millisecond each, waited for 300 ms at a time with pauses.
Back: drops the columns with the same lock; the extension stays. Half-way: migrate again.
"""

from django.db import migrations
from pgvector.django import VectorField

from retrieval.schema.operations import AddEmbedding, EnableVector


class Migration(migrations.Migration):
    atomic = False  # one table a transaction: a lock on both at once would wait twice as long
    dependencies = [("chat", "0001_initial")]
    operations = [
        EnableVector(),
        *(
            AddEmbedding(
                model_name=model,
                name="embedding",
                field=VectorField(blank=True, dimensions=1536, editable=False, null=True),
            )
            for model in ("chatmessage", "standalonechatmessage")
        ),
        # Of Django alone: nothing is sent to the database.
        *(
            migrations.AlterModelOptions(name=model, options={"base_manager_name": "objects"})
            for model in ("chatmessage", "standalonechatmessage")
        ),
    ]
