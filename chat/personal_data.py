"""All that is held about a user: given out as JSON Lines, and erased."""

import json
from collections.abc import AsyncIterator, Iterator
from contextlib import suppress
from typing import Any

from asgiref.sync import sync_to_async
from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.utils import timezone

from chat.answers import turns
from chat.db import with_connection
from chat.models import (
    ApiToken,
    ChatMessage,
    IdempotencyKey,
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from retrieval import forgetting, storage
from retrieval.db import NoMemory

PAGE_ROWS = 500
# In this order: what refers to something goes before it.
ERASED: tuple[type[models.Model], ...] = (
    RunningAnswer,
    IdempotencyKey,
    ChatMessage,
    StandaloneChatMessage,
    Passage,
    StandaloneChat,
)
MESSAGE = (
    "id",
    "conversation_id",
    "role",
    "content",
    "created_at",
    "status",
    "edited_at",
    "reply_to",
    "context",
    "truncated",
    "error",
)
# What each line of an export holds beside its ``table``. Never a digest; embeddings are made from the texts.
GIVEN_OUT: dict[type[models.Model], tuple[str, ...]] = {
    MemorySwitch: ("enabled", "changed_at"),
    ApiToken: ("id", "name", "created_at", "last_used_at"),
    StandaloneChat: ("id", "title", "memory", "source", "created_at", "updated_at"),
    StandaloneChatMessage: MESSAGE,
    Passage: ("id", "reference", "text", "memory", "source", "created_at", "updated_at"),
    ChatMessage: MESSAGE,
    IdempotencyKey: ("key", "passage_id", "chat_id", "message_id", "created_at"),
    RunningAnswer: ("message_id", "text", "started_at"),
}


async def export(user: User) -> AsyncIterator[bytes]:
    """A line for the user, then one for each row; a page of rows at a time, no connection held between them."""
    fields = ("id", "username", "email", "first_name", "last_name", "date_joined", "last_login")
    yield _line("auth_user", {name: getattr(user, name) for name in fields})
    for model in GIVEN_OUT:
        after = 0
        while page := await sync_to_async(with_connection)(_page, model, user.pk, after):
            after = page[-1]["pk"]
            yield b"".join(_lines(model, page))


def erase(user_id: int) -> dict[str, Any]:
    """Delete the user's conversations and all that belongs to them, in one transaction: ``{"deleted", "at"}``.

    ``deleted`` counts rows by table. An answer that is being given ends with its conversation. Locks: the user's row,
    and the rows that go; nobody else's.
    """
    with transaction.atomic():
        turns.lock_user(user_id)  # no turn is begun meanwhile
        deleted = _memories(user_id)
        for model in ERASED:
            deleted[model._meta.db_table] = model._default_manager.filter(user_id=user_id).delete()[
                0
            ]
        with suppress(NoMemory):
            forgetting.erase(user_id)  # the ids of what went just now among them
    return {"deleted": deleted, "at": timezone.now()}


def _memories(user_id: int) -> dict[str, int]:
    """How many rows of recall's go with the messages; {} where the schema has no memory."""
    try:
        return {"message_memories": storage.count_all(user_id)}
    except NoMemory:
        return {}


def _page(model: type[models.Model], user_id: int, after: int) -> list[dict[str, Any]]:
    rows = model._default_manager.filter(user_id=user_id, pk__gt=after).order_by("pk")
    return list(rows.values("pk", *GIVEN_OUT[model])[:PAGE_ROWS])


def _lines(model: type[models.Model], page: list[dict[str, Any]]) -> Iterator[bytes]:
    for row in page:
        yield _line(model._meta.db_table, {name: row[name] for name in GIVEN_OUT[model]})


def _line(table: str, row: dict[str, Any]) -> bytes:
    return (
        json.dumps({"table": table} | row, cls=DjangoJSONEncoder, ensure_ascii=False).encode()
        + b"\n"
    )
