"""Exports what is stored about a user as JSON Lines, and erases the conversations.

Erasing leaves the account, its API tokens, its memory switch and its rate limits.
"""

import json
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from django.contrib.auth.models import User
from django.core.serializers.json import DjangoJSONEncoder
from django.db import models, transaction
from django.utils import timezone

from chat import client_chats
from chat.answers import turns
from chat.erasures import mark_erased
from chat.models import (
    ApiToken,
    ChatMessage,
    ClientChat,
    IdempotencyKey,
    KeptConversation,
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.models.imports import MemoryImport, has_imports
from chat.retention import kept
from retrieval import forgetting, steps, storage, token_usage
from retrieval.db import NoMemory
from retrieval.embeddings import usage
from retrieval.models import UserEmbeddingUsage, UserTokenUsage
from retrieval.replica.user_writes import recorded

PAGE_ROWS = 500
# In this order: rows that refer to others are deleted before them.
ERASED: tuple[type[models.Model], ...] = (
    # An import that runs ends here: it waits for this deletion, or this waits for its commit.
    MemoryImport,
    RunningAnswer,
    IdempotencyKey,
    ChatMessage,
    StandaloneChatMessage,
    Passage,
    StandaloneChat,
)
USER_FIELDS = ("id", "username", "email", "first_name", "last_name", "date_joined", "last_login")
MESSAGE_FIELDS = (
    *("id", "conversation_id", "role", "content", "created_at", "status"),
    *("edited_at", "reply_to", "context", "truncated", "error"),
)
# The fields of each exported line. No digests; embeddings can be computed from the texts.
EXPORTED: dict[type[models.Model], tuple[str, ...]] = {
    MemorySwitch: ("enabled", "changed_at"),
    ApiToken: ("id", "name", "created_at", "last_used_at"),
    StandaloneChat: ("id", "title", "memory", "source", "created_at", "updated_at"),
    StandaloneChatMessage: MESSAGE_FIELDS,
    Passage: ("id", "reference", "text", "memory", "source", "created_at", "updated_at"),
    ChatMessage: MESSAGE_FIELDS,
    IdempotencyKey: ("key", "passage_id", "chat_id", "message_id", "created_at"),
    RunningAnswer: ("message_id", "text", "started_at"),
    ClientChat: ("client_id", "chat_id"),
    KeptConversation: ("chat_id", "passage_id"),
    UserEmbeddingUsage: ("day", "model", "texts", "tokens", "cost_usd"),
    UserTokenUsage: (
        *("day", "prompt_tokens", "completion_tokens", "cached_tokens", "embedding_tokens"),
    ),
    MemoryImport: ("id", "format", "status", "conversations", "messages", "left_out", "created_at"),
}


async def export(user: User) -> AsyncIterator[bytes]:
    """A line for the user, then one for each row. One query per 500 rows, no connection between."""
    yield _line("auth_user", {name: getattr(user, name) for name in USER_FIELDS})
    for model in EXPORTED:
        last_pk: Any = None
        while page := await steps.run(_page, model, user.pk, last_pk):
            last_pk = page[-1]["pk"]
            yield b"".join(_lines(model, page))


def erase(user_id: int) -> dict[str, Any]:
    """Delete the user's conversations and everything that belongs to them, in one transaction.

    What turns have used and what embedding has cost stays, as numbers by day, until the account is
    deleted: an erasure must not reset a daily limit.
    Returns ``{"deleted": rows by table, "at"}``. A running answer ends with its conversation.
    Locks: the user's row and the deleted rows.
    """
    with transaction.atomic(), recorded(user_id):
        turns.lock_user(user_id)  # so that no turn starts meanwhile
        deleted = _count_memories(user_id)
        for model in filter(_exists, ERASED):
            rows = model._default_manager.filter(user_id=user_id)
            deleted[model._meta.db_table] = rows.delete()[0]
        with suppress(NoMemory):
            forgetting.erase(user_id)  # the triggers have just recorded these deletions
        mark_erased(user_id)
    return {"deleted": deleted, "at": timezone.now()}


def _count_memories(user_id: int) -> dict[str, int]:
    """How many rows of memory are deleted with the messages; {} in a schema without memory."""
    try:
        return {"message_memories": storage.count_all(user_id)}
    except NoMemory:
        return {}


def _page(model: type[models.Model], user_id: int, last_pk: Any) -> list[dict[str, Any]]:
    if not _exists(model):
        return []
    if model is ClientChat and not client_chats.has_table():
        return []
    rows = model._default_manager.filter(user_id=user_id).order_by("pk")
    if last_pk is not None:
        rows = rows.filter(pk__gt=last_pk)
    return list(rows.values("pk", *EXPORTED[model])[:PAGE_ROWS])


def _exists(model: type[models.Model]) -> bool:
    """Whether the table exists: some come with later migrations than the chat's first."""
    if model is UserEmbeddingUsage:
        return usage.has_table()
    if model is KeptConversation:
        return kept.has_table()
    if model is UserTokenUsage:
        return token_usage.has_table()
    return model is not MemoryImport or has_imports()


def _lines(model: type[models.Model], page: list[dict[str, Any]]) -> list[bytes]:
    table, fields = model._meta.db_table, EXPORTED[model]
    return [_line(table, {name: row[name] for name in fields}) for row in page]


def _line(table: str, row: dict[str, Any]) -> bytes:
    line = json.dumps({"table": table} | row, cls=DjangoJSONEncoder, ensure_ascii=False)
    return line.encode() + b"\n"
