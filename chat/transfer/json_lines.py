"""A line: one message as a JSON object, and what makes a line bad.

``{"user", "conversation", "kind"?, "role", "content", "created_at"}``; other keys are ignored.
``conversation`` is the conversation's name in the file; a whole number counts as its digits.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple

from chat.models import KINDS, MAX_CONTENT_CHARS, Role

ROLES = frozenset(Role.values)
MAX_FILE_LINE_BYTES = 1_000_000  # newline included; 32,000 characters, each two \uXXXX, are 384,000
MAX_USER_CHARS = 150  # auth_user.username
MAX_NAME_CHARS = 255  # Conversation.source
encode = json.JSONEncoder(ensure_ascii=False).encode


class BadLineError(Exception):
    """Why a line is no message, in a few words that quote nothing of it but a user's name."""


class Line(NamedTuple):
    """A message of a file; ``created_at`` is in UTC."""

    kind: str
    user: str
    conversation: str
    role: str
    content: str
    created_at: datetime

    def as_bytes(self) -> bytes:
        fields = {
            "user": self.user,
            "conversation": self.conversation,
            "kind": self.kind,
            "role": self.role,
        }
        at = self.created_at.isoformat(timespec="microseconds")
        fields |= {"content": self.content, "created_at": at.replace("+00:00", "Z")}
        return encode(fields).encode() + b"\n"


def read(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each with its newline; of a longer one MAX_FILE_LINE_BYTES + 1 bytes."""
    while line := file.readline(MAX_FILE_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_FILE_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_FILE_LINE_BYTES + 1)


def parse(raw: bytes) -> Line:
    """Raises BadLineError: the line is no message."""
    fields = _object(raw)
    return Line(
        _one_of(KINDS, fields.get("kind", "chat"), "kind must be chat or passage"),
        _text(fields, "user", MAX_USER_CHARS),
        _text(fields, "conversation", MAX_NAME_CHARS),
        _one_of(ROLES, fields.get("role"), "role must be user or assistant"),
        _text(fields, "content", MAX_CONTENT_CHARS),
        _time(fields.get("created_at")),
    )


def _object(raw: bytes) -> dict[str, Any]:
    _refuse_unless(len(raw) <= MAX_FILE_LINE_BYTES, f"longer than {MAX_FILE_LINE_BYTES:,} bytes")
    try:
        parsed = json.loads(raw.removeprefix(BOM_UTF8).decode())
    except (ValueError, RecursionError) as error:
        raise BadLineError(_why(raw, error)) from None  # the error holds the line
    _refuse_unless(isinstance(parsed, dict), "not a JSON object")
    fields: dict[str, Any] = parsed
    if isinstance(fields.get("conversation"), int) and not isinstance(fields["conversation"], bool):
        fields["conversation"] = str(fields["conversation"])
    return fields


def _why(raw: bytes, error: Exception) -> str:
    if not raw.endswith(b"\n"):
        return "the file ends in the middle of it"
    return "not UTF-8" if isinstance(error, UnicodeDecodeError) else "not JSON"


def _one_of(known: Container[str], value: object, reason: str) -> str:
    if isinstance(value, str) and value in known:
        return value
    raise BadLineError(reason)


def _text(fields: dict[str, Any], name: str, max_chars: int) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadLineError(f"{name} must be text")
    _refuse_unless(bool(value.strip()), f"{name} is blank")
    _refuse_unless(len(value) <= max_chars, f"{name} is longer than {max_chars:,} characters")
    _refuse_unless("\x00" not in value, f"{name} holds NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadLineError(f"{name} holds a lone surrogate") from None
    return value


def _time(value: object) -> datetime:
    try:
        # Anything but text is a TypeError.
        at = datetime.fromisoformat(value)  # type: ignore[arg-type]
        _refuse_unless(at.tzinfo is not None, "created_at has no offset from UTC")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise BadLineError("created_at must be an ISO 8601 time with an offset") from None


def _refuse_unless(fine: bool, reason: str) -> None:
    if not fine:
        raise BadLineError(reason)
