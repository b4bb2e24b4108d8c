"""How much of a user's messages is in memory, and how it is recalled."""

from contextlib import suppress
from typing import Any

from chat.memory.memory_settings import MemorySettings, memory_settings_of
from chat.memory.recall import HYBRID, LEXICAL, OFF, can_recall
from chat.memory.recalled import MODELS
from chat.models import Message
from retrieval import current_model, storage
from retrieval.backfill.pending import count_tainted
from retrieval.db import NoMemory
from retrieval.embeddings import embedding_service
from retrieval.message_tables import unpack_ref

COPIES = {"context__contains": [{"copy": True}]}  # retrieval/message_tables.py, IS_COPY


def memory_state(user_id: int) -> dict[str, Any]:
    """The answer of ``GET /api/memory/``: docs/api/memory.md. Numbers are messages."""
    memory_settings = memory_settings_of(user_id)
    messages = sum(_visible(model, user_id, memory_settings) for model in MODELS.values())
    embedded = failed = 0
    by_meaning = False
    with suppress(NoMemory):
        embedded, failed = storage.count(user_id, memory_settings.hidden)
        by_meaning = (
            embedded > 0 and current_model.current_model() == embedding_service.model_name()
        )
    mode = HYBRID if by_meaning and not embedding_service.is_paused() else LEXICAL
    if not (memory_settings.enabled and can_recall()):
        mode = OFF
    pending = _pending(user_id, messages - embedded - failed) if memory_settings.enabled else 0
    return {
        "enabled": memory_settings.enabled,
        "messages": messages,
        "embedded": embedded,
        "pending": pending,
        "failed": failed,
        "mode": mode,
    }


def _pending(user_id: int, without: int) -> int:
    """How many of the messages without a vector are to be embedded: none that is tainted."""
    with suppress(NoMemory):
        without -= count_tainted(user_id) if without > 0 else 0
    return max(without, 0)


def _visible(model: type[Message], user_id: int, memory_settings: MemorySettings) -> int:
    """How many of the user's messages are in no hidden conversation. One query."""
    kind_bit = model.memory_table.kind_bit
    hidden = [pk for bit, pk in map(unpack_ref, memory_settings.hidden) if bit == kind_bit]
    messages = model._default_manager.of(user_id).finished()
    return int(messages.exclude(conversation_id__in=hidden).exclude(**COPIES).count())
