"""Indexes by which the admin lists messages of a user, of a status, and of a range of time.

Each takes some 30 MB for 1,000,000 messages, and a second to build; that of ended answers is tiny.
The index of a user's messages takes the place of Django's own of the same column.

Lock: SHARE UPDATE EXCLUSIVE on a message table while an index is built or dropped, so reads and
writes go on; it waits for open transactions. Back: builds Django's index, drops these. Stopped
half-way: run migrate again; lists work in between, and may read a whole table.
"""

from pathlib import Path

import django.db.models.deletion
from django.conf import settings
from django.db import migrations, models

from retrieval.schema.operations import CreateIndex, DropIndex

SQL = Path(__file__).with_name("sql")
OLD_INDEXES = {
    "chat_messages": "chat_messages_user_id_cf3eadd8",
    "standalone_messages": "standalone_chat_messages_user_id_281ade96",
}


def database_operations(prefix: str) -> list[migrations.operations.base.Operation]:
    """What is done to one message table."""
    return [
        CreateIndex(f"{prefix}_user", SQL / f"0012_{prefix}_user.sql"),
        CreateIndex(f"{prefix}_created", SQL / f"0012_{prefix}_created.sql"),
        CreateIndex(f"{prefix}_ended", SQL / f"0012_{prefix}_ended.sql"),
        DropIndex(OLD_INDEXES[prefix], SQL / f"0012_{prefix}_old_user.sql"),
    ]


def state_operations(model: str, prefix: str) -> list[migrations.operations.base.Operation]:
    """The same for Django's state of the model."""
    return [
        migrations.AlterField(
            model,
            "user",
            models.ForeignKey(
                db_index=False,
                on_delete=django.db.models.deletion.CASCADE,
                related_name="+",
                to=settings.AUTH_USER_MODEL,
            ),
        ),
        migrations.AddIndex(model, models.Index(fields=["user", "id"], name=f"{prefix}_user")),
        migrations.AddIndex(
            model, models.Index(fields=["created_at", "id"], name=f"{prefix}_created")
        ),
        migrations.AddIndex(
            model,
            models.Index(
                fields=["status", "id"],
                condition=models.Q(status__in=["failed", "interrupted"]),
                name=f"{prefix}_ended",
            ),
        ),
    ]


class Migration(migrations.Migration):
    atomic = False  # CREATE INDEX CONCURRENTLY refuses to run in a transaction
    dependencies = [
        ("chat", "0011_audit_log"),
        migrations.swappable_dependency(settings.AUTH_USER_MODEL),
    ]
    operations = [
        migrations.SeparateDatabaseAndState(
            database_operations(prefix), state_operations(model, prefix)
        )
        for model, prefix in (
            ("chatmessage", "chat_messages"),
            ("standalonechatmessage", "standalone_messages"),
        )
    ]
