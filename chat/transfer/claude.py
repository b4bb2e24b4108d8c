"""Reads a conversation of a Claude export: the path to its newest message.

``{"uuid", "name", "created_at", "chat_messages": [{"uuid", "parent_message_uuid"?, "sender",
"created_at", "text", "content": [{"type", "text"}], "attachments", "files"}]}``; times are ISO
8601. Older exports name no parents: there all messages are the path, in their order.
"""

from collections import Counter
from datetime import UTC, datetime
from typing import Any

from chat.models import Role
from chat.transfer.product_export import (
    NotOfProductError,
    ProductConversation,
    ProductMessage,
    id_of,
    path_to_root,
    text_of,
)

PREFIX = "claude:"
ROLES = {"human": Role.USER, "assistant": Role.ASSISTANT}
# In place of a block that the app of that time could not show.
PLACEHOLDER = "```\nThis block is not supported on your current device yet.\n```"
EARLIEST = datetime.min.replace(tzinfo=UTC)


def read_conversation(parsed: dict[str, Any], left_out: Counter[str]) -> ProductConversation:
    """Counts into ``left_out``. Raises NotOfProductError."""
    rows = parsed.get("chat_messages")
    if not isinstance(rows, list):
        raise NotOfProductError("its conversations have no chat_messages")
    name = id_of(parsed.get("uuid"), "a conversation's uuid")
    messages = {_id(row, place): row for place, row in enumerate(rows) if isinstance(row, dict)}
    path = _path(messages)
    left_out["unknown_message"] += len(rows) - len(messages)
    left_out["other_branch"] += len(messages) - len(path)
    read = [_read(item, messages[item], left_out) for item in path]
    return ProductConversation(
        PREFIX + name,
        text_of(parsed.get("name")),
        _time(parsed.get("created_at")),
        [message for message in read if message],
    )


def _id(row: dict[str, Any], place: int) -> str:
    return text_of(row.get("uuid")) or str(place)


def _path(messages: dict[str, dict[str, Any]]) -> list[str]:
    parents = {item: text_of(row.get("parent_message_uuid")) for item, row in messages.items()}
    if not any(parents.values()):
        return list(messages)
    with_children = set(parents.values())
    leaves = [item for item in messages if item not in with_children]
    times = {item: _time(messages[item].get("created_at")) or EARLIEST for item in leaves}
    # Of equal times the last.
    newest = max(reversed(leaves), key=lambda item: times[item], default="")
    return path_to_root(newest, dict(parents))


def _read(item: str, row: dict[str, Any], left_out: Counter[str]) -> ProductMessage | None:
    role = ROLES.get(text_of(row.get("sender")))
    if role is None:
        left_out["unknown_message"] += 1
        return None
    for name in ("attachments", "files"):
        left_out["attachment"] += len(row[name]) if isinstance(row.get(name), list) else 0
    text = _text(row, left_out)
    return ProductMessage(item, role, text, _time(row.get("created_at")))


def _text(row: dict[str, Any], left_out: Counter[str]) -> str:
    """The text blocks, where there are any: ``text`` also has placeholders for other blocks."""
    content = row.get("content")
    items = content if isinstance(content, list) else []
    blocks = [block for block in items if isinstance(block, dict)]
    texts = [text_of(block.get("text")) for block in blocks if block.get("type") == "text"]
    for block in blocks:
        kind = text_of(block.get("type"))
        if kind != "text":
            left_out["reasoning" if kind == "thinking" else "tool"] += 1
    text = "\n\n".join(text for text in texts if text.strip())
    return text or text_of(row.get("text")).replace(PLACEHOLDER, "")


def _time(value: object) -> datetime | None:
    try:
        at = datetime.fromisoformat(text_of(value))
        return at.replace(tzinfo=at.tzinfo or UTC).astimezone(UTC)
    except (ValueError, OverflowError):
        return None
