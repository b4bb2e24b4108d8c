"""Reads a conversation of a ChatGPT export: the branch of its tree that ends at current_node.

``{"conversation_id" or "id", "title", "create_time", "current_node", "mapping": {node id:
{"parent", "message": null or {"author": {"role"}, "create_time", "recipient", "content":
{"content_type", "parts"}, "metadata"}}}}``; times are seconds since 1970.
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

PREFIX = "chatgpt:"
TEXTS = {"text", "multimodal_text"}
REASONING = {"thoughts", "reasoning_recap"}
ROLES = {"user": Role.USER, "assistant": Role.ASSISTANT}
HIDDEN = ("is_visually_hidden_from_conversation", "is_user_system_message")


def read_conversation(parsed: dict[str, Any], left_out: Counter[str]) -> ProductConversation:
    """Counts into ``left_out``. Raises NotOfProductError."""
    nodes = parsed.get("mapping")
    if not isinstance(nodes, dict):
        raise NotOfProductError("its conversations have no mapping")
    name = id_of(parsed.get("conversation_id") or parsed.get("id"), "a conversation's id")
    parents = {node: _parent(nodes[node]) for node in nodes}
    path = path_to_root(_end(parsed.get("current_node"), parents), parents)
    others = (nodes[node] for node in nodes.keys() - set(path))
    left_out["other_branch"] += sum(_has_text(_message(node)) for node in others)
    messages = [_read(node, _message(nodes[node]), left_out) for node in path]
    return ProductConversation(
        PREFIX + name,
        text_of(parsed.get("title")),
        _time(parsed.get("create_time")),
        [message for message in messages if message],
    )


def _parent(node: object) -> str | None:
    parent = node.get("parent") if isinstance(node, dict) else None
    return parent if isinstance(parent, str) else None


def _end(current: object, parents: dict[str, str | None]) -> str:
    """current_node; where it is missing, the last node that has no child."""
    if isinstance(current, str) and current in parents:
        return current
    with_children = set(parents.values())
    leaves = [node for node in parents if node not in with_children]
    return leaves[-1] if leaves else ""


def _message(node: object) -> dict[str, Any]:
    message = node.get("message") if isinstance(node, dict) else None
    return message if isinstance(message, dict) else {}


def _read(node: str, message: dict[str, Any], left_out: Counter[str]) -> ProductMessage | None:
    if not message:  # the root of each tree
        return None
    reason = _reason_to_leave_out(message)
    if reason:
        left_out[reason] += 1
        return None
    content = message["content"]
    parts = content.get("parts") if isinstance(content.get("parts"), list) else []
    texts = [text for part in parts if (text := _text(part)).strip()]
    left_out["attachment"] += sum(not isinstance(part, str) and not _text(part) for part in parts)
    role = ROLES[message["author"]["role"]]
    return ProductMessage(node, role, "\n\n".join(texts), _time(message.get("create_time")))


def _reason_to_leave_out(message: dict[str, Any]) -> str | None:
    author, content = message.get("author"), message.get("content")
    metadata = message.get("metadata")
    role = text_of(author.get("role")) if isinstance(author, dict) else ""
    kind = text_of(content.get("content_type")) if isinstance(content, dict) else ""
    if role == "tool" or message.get("recipient") not in (None, "all"):
        return "tool"
    if kind in REASONING:
        return "reasoning"
    is_hidden = isinstance(metadata, dict) and any(metadata.get(name) for name in HIDDEN)
    if role not in ROLES or kind == "user_editable_context" or is_hidden:
        return "system"
    return None if kind in TEXTS else "other_content"


def _has_text(message: dict[str, Any]) -> bool:
    return _read("", message, Counter()) is not None


def _text(part: object) -> str:
    """A text, or what was said in a recording."""
    if isinstance(part, dict) and part.get("content_type") == "audio_transcription":
        part = part.get("text")
    return text_of(part)


def _time(value: object) -> datetime | None:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    try:
        return datetime.fromtimestamp(value, UTC) if value > 0 else None
    except (ValueError, OverflowError, OSError):  # ValueError: not a number
        return None
