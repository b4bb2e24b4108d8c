"""Exports in the form of ChatGPT's and Claude's, of our own writing."""

import io
import json
import zipfile
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

AT = 1_700_000_000.25  # 2023-11-14T22:13:20.25Z


def node(
    item: str,
    parent: str | None,
    text: object = None,
    *,
    role: str = "user",
    at: object = None,
    **message: Any,
) -> dict[str, Any]:
    """A node of ChatGPT's tree; ``text`` is a text, a list of parts, or a whole content."""
    content = text
    if isinstance(text, str):
        content = {"content_type": "text", "parts": [text]}
    elif isinstance(text, list):
        content = {"content_type": "multimodal_text", "parts": text}
    author: dict[str, Any] = {"role": role, "name": None, "metadata": {}}
    fields = {"id": item, "author": author, "create_time": at, "content": content}
    fields |= {"recipient": "all", "metadata": {}, "weight": 1.0} | message
    return {"id": item, "parent": parent, "message": None if text is None else fields}


def chatgpt(name: str, /, *nodes: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A conversation whose current node is the last one."""
    children: dict[str, list[str]] = {}
    for row in nodes:
        children.setdefault(row["parent"], []).append(row["id"])
    mapping = {row["id"]: row | {"children": children.get(row["id"], [])} for row in nodes}
    return {
        "title": "A talk",
        "create_time": AT,
        "update_time": AT + 100,
        "mapping": mapping,
        "current_node": nodes[-1]["id"] if nodes else None,
        "conversation_id": name,
        "id": name,
    } | fields


def talk(name: str, /, *texts: str, **fields: Any) -> dict[str, Any]:
    """A ChatGPT conversation of these texts in turn, the user's first, a second apart."""
    rows = [node(f"{name}-root", None)]
    for number, text in enumerate(texts):
        role = "assistant" if number % 2 else "user"
        rows.append(node(f"{name}-{number}", rows[-1]["id"], text, role=role, at=AT + number))
    return chatgpt(name, *rows, **fields)


def claude_message(item: str, text: str, **fields: Any) -> dict[str, Any]:
    return {
        "uuid": item,
        "text": text,
        "content": [{"type": "text", "text": text, "citations": []}] if text else [],
        "sender": "human",
        "created_at": "2024-05-03T10:00:00.123456Z",
        "updated_at": "2024-05-03T10:00:00.123456Z",
        "attachments": [],
        "files": [],
    } | fields


def claude(name: str, /, *messages: dict[str, Any], **fields: Any) -> dict[str, Any]:
    return {
        "uuid": name,
        "name": "A talk",
        "summary": "",
        "created_at": "2024-05-03T09:59:59Z",
        "updated_at": "2024-05-03T11:00:00Z",
        "account": {"uuid": "00000000-0000-0000-0000-0000000000aa"},
        "chat_messages": list(messages),
    } | fields


def as_json(*conversations: dict[str, Any]) -> bytes:
    return json.dumps(conversations).encode()


def archive(members: Mapping[str, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", method) as opened:
        for name, content in members.items():
            opened.writestr(name, content)
    return packed.getvalue()


def write(path: Path, content: bytes | Iterable[bytes]) -> str:
    path.write_bytes(content if isinstance(content, bytes) else b"".join(content))
    return str(path)
