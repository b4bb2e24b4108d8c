"""The extension vector, and a nullable column for the embedding in each message table.

Lock: ACCESS EXCLUSIVE on one table after the other, under a millisecond each, with a timeout of
300 ms and retries. Back: drops the columns with the same lock; the extension stays. Stopped
half-way: run migrate again.
"""

from pathlib import Path

from django.db import migrations
from pgvector.django import VectorField

from retrieval.schema.operations import AddEmbedding, EnableVector, RemoveMemory


class Migration(migrations.Migration):
    atomic = False  # one table a transaction: locks on both at once would wait twice as long
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
        # Django's state alone: nothing is sent to the database.
        *(
            migrations.AlterModelOptions(name=model, options={"base_manager_name": "objects"})
            for model in ("chatmessage", "standalonechatmessage")
        ),
        # For the way back where 0005_memory is not applied but an earlier state of this repository
        # has added memory: its triggers depend on the column.
        RemoveMemory(Path(__file__).with_name("sql")),
    ]
