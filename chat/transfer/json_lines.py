"""A line: one message as a JSON object, and what makes a line bad.

``{"user", "conversation", "kind"?, "role", "content", "created_at", "status"?}``; other keys are
ignored. ``conversation`` is the conversation's name in the file; a whole number counts as its
digits. ``status`` is of an answer that is not complete. The first line of a conversation in an
export also has what belongs to the conversation: ``title`` of a chat, ``reference`` and ``text`` of
a passage, ``memory`` if it is off, and ``conversation_created_at``, by which the database that it
came from knows it again. Without them the title is the conversation's name, a passage's text its
reference, and the conversation as old as its first message.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Container, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, NamedTuple, Self

from chat.auth.usernames import normalize
from chat.models import KINDS, MAX_CONTENT_CHARS, Passage, Role, Status

ROLES = frozenset(Role.values)
# Of an answer, which can be as long as a model gives it; the others end where they began.
ANSWER_STATUSES = frozenset((Status.COMPLETE, Status.INTERRUPTED, Status.FAILED))
# Newline included. An answer of a million tokens has some 4,000,000 characters.
MAX_FILE_LINE_BYTES = 16_000_000
MAX_TITLE_CHARS = 200  # StandaloneChat.title, Passage.reference
MAX_USER_CHARS = 150  # auth_user.username
MAX_NAME_CHARS = 255  # Conversation.source
encode = json.JSONEncoder(ensure_ascii=False).encode


class BadLineError(Exception):
    """Why a line is no message, in a few words that quote nothing of it but a user's name."""


class Details(NamedTuple):
    """What a line says about its conversation; None: nothing. ``title``: a passage's reference."""

    title: str | None = None
    text: str | None = None
    memory: bool | None = None
    created_at: datetime | None = None

    def as_fields(self, kind: str) -> dict[str, Any]:
        fields: dict[str, Any] = {_title_key(kind): self.title, "text": self.text}
        if self.memory is False:
            fields["memory"] = False
        if self.created_at is not None:
            fields["conversation_created_at"] = _as_text(self.created_at)
        return {name: value for name, value in fields.items() if value is not None}


class Line(NamedTuple):
    """A message of a file; times are in UTC."""

    kind: str
    user: str
    conversation: str
    role: str
    content: str
    created_at: datetime
    status: str = Status.COMPLETE
    details: Details = Details()

    def without_defaults(self) -> Self:
        """Without details that an import takes from the line's other fields."""
        details, name = self.details, self.conversation[:MAX_TITLE_CHARS]
        if details.text == details.title:
            details = details._replace(text=None)
        if details.title == name:
            details = details._replace(title=None)
        if details.created_at == self.created_at:
            details = details._replace(created_at=None)
        return self._replace(details=details)

    def as_bytes(self) -> bytes:
        fields = {
            "user": self.user,
            "conversation": self.conversation,
            "kind": self.kind,
            "role": self.role,
        }
        fields |= {"content": self.content, "created_at": _as_text(self.created_at)}
        if self.status != Status.COMPLETE:
            fields["status"] = str(self.status)
        return encode(fields | self.details.as_fields(self.kind)).encode() + b"\n"


def read(file: BinaryIO) -> Iterator[bytes]:
    """The lines of a file, each with its newline; of a longer one MAX_FILE_LINE_BYTES + 1 bytes."""
    while line := file.readline(MAX_FILE_LINE_BYTES + 1):
        yield line
        while len(line) > MAX_FILE_LINE_BYTES and not line.endswith(b"\n"):
            line = file.readline(MAX_FILE_LINE_BYTES + 1)


def parse(raw: bytes, *, owner: str | None = None) -> Line:
    """Raises BadLineError: the line is no message. ``owner``: the only user that it may name."""
    fields = _object(raw)
    kind = _one_of(KINDS, fields.get("kind", "chat"), "kind must be chat or passage")
    role = _one_of(ROLES, fields.get("role"), "role must be user or assistant")
    status = _status(fields, role)
    return Line(
        kind,
        _user(fields) if owner is None else _owner(fields, owner),
        _text(fields, "conversation", MAX_NAME_CHARS),
        role,
        _content(fields, role, status),
        _time(fields, "created_at"),
        status,
        _details(fields, kind),
    )


def _user(fields: dict[str, Any]) -> str:
    """In Django's normal form, in which users are created and sign in."""
    name = _text(fields, "user", MAX_USER_CHARS)
    fields["user"] = normalize(name)  # can have more characters
    return _text(fields, "user", MAX_USER_CHARS)


def _owner(fields: dict[str, Any], owner: str) -> str:
    is_own = fields.get("user") is None or _user(fields) == normalize(owner)
    _refuse_unless(is_own, "user is another one; leave it out, or name yourself")
    return owner


def _content(fields: dict[str, Any], role: str, status: str) -> str:
    """An answer has any length, and no text if it ended before its first word."""
    if role == Role.USER:
        return _text(fields, "content", MAX_CONTENT_CHARS)
    may_be_blank = status != Status.COMPLETE or fields.get("content") != ""
    return _text(fields, "content", None, may_be_blank=may_be_blank)


def _status(fields: dict[str, Any], role: str) -> str:
    known = ANSWER_STATUSES if role == Role.ASSISTANT else (Status.COMPLETE,)
    reason = "status must be complete, or for an answer interrupted or failed"
    return _one_of(known, fields.get("status") or Status.COMPLETE, reason)


def _details(fields: dict[str, Any], kind: str) -> Details:
    memory = fields.get("memory")
    _refuse_unless(memory is None or isinstance(memory, bool), "memory must be true or false")
    return Details(
        _optional_text(fields, _title_key(kind), MAX_TITLE_CHARS),
        _optional_text(fields, "text", None) if kind == Passage.kind else None,
        memory,
        _time(fields, "conversation_created_at") if "conversation_created_at" in fields else None,
    )


def _title_key(kind: str) -> str:
    return "reference" if kind == Passage.kind else "title"


def _as_text(at: datetime) -> str:
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


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


def _optional_text(fields: dict[str, Any], name: str, max_chars: int | None) -> str | None:
    if fields.get(name) is None:
        return None
    return _text(fields, name, max_chars, may_be_blank=True)


def _text(
    fields: dict[str, Any], name: str, max_chars: int | None, *, may_be_blank: bool = False
) -> str:
    value = fields.get(name)
    if not isinstance(value, str):
        raise BadLineError(f"{name} must be text")
    _refuse_unless(may_be_blank or bool(value.strip()), f"{name} is blank")
    _refuse_unless(
        max_chars is None or len(value) <= max_chars,
        f"{name} is longer than {max_chars or 0:,} characters",
    )
    _refuse_unless("\x00" not in value, f"{name} holds NUL")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise BadLineError(f"{name} holds a lone surrogate") from None
    return value


def _time(fields: dict[str, Any], name: str) -> datetime:
    try:
        # Anything but text is a TypeError.
        at = datetime.fromisoformat(fields.get(name))  # type: ignore[arg-type]
        _refuse_unless(at.tzinfo is not None, f"{name} has no offset from UTC")
        return at.astimezone(UTC)
    except (TypeError, ValueError, OverflowError):
        raise BadLineError(f"{name} must be an ISO 8601 time with an offset") from None


def _refuse_unless(fine: bool, reason: str) -> None:
    if not fine:
        raise BadLineError(reason)
