"""The tools: search, fetch, remember and forget, each for one user, by the API's services."""

import logging
import re
from collections.abc import Callable
from typing import Any

from django.contrib.auth.models import User
from django.db import Error
from django.db.models import F
from django.db.models.fields.tuple_lookups import Tuple, TupleGreaterThan, TupleLessThan
from rest_framework.exceptions import APIException, ValidationError

from chat.api.serializers import ContentSerializer, HeadingSerializer, SearchSerializer
from chat.errors import DatabaseUnavailable, is_database_away
from chat.json_times import json_time
from chat.memory.memory_settings import memory_settings_of
from chat.memory_service import MemoryService
from chat.models import KINDS, Message
from chat.remembered import remember
from chat.services import ChatService
from retrieval.db_errors import error_name

logger = logging.getLogger(__name__)
ID = re.compile("(chat|passage)-([0-9]{1,18})")
MAX_CHARS = 2_000  # of a text in a list: fifty of them still fit into an assistant's window
AROUND = 4  # messages before and after: two turns
NOT_THERE = "There is no such message."
UNEXPECTED = "Something went wrong on the server; it is in its log."
# The API's names of arguments.
NAMES = {"q": "query", "content": "text"}


class ToolError(Exception):
    """What the assistant reads instead of a result. It never says whose a message is."""


def call_tool(user: User, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    """The structured result of one of TOOLS. Raises ToolError."""
    try:
        return TOOLS[name](user, arguments)
    except ValidationError as error:
        raise ToolError(_in_words(error)) from error
    except APIException as error:
        raise ToolError(str(error.detail)) from error
    except Error as error:
        logger.error("Tool %s failed: %s", name, error_name(error))
        is_away = is_database_away(error)
        raise ToolError(DatabaseUnavailable.default_detail if is_away else UNEXPECTED) from error


def search(user: User, arguments: dict[str, Any]) -> dict[str, Any]:
    """The recall that answers use, best first."""
    fields = ("limit", "since", "until")
    given = {name: arguments[name] for name in fields if arguments.get(name) is not None}
    query = SearchSerializer(data={"q": arguments.get("query")} | given)
    query.is_valid(raise_exception=True)
    text = query.validated_data.pop("q")
    result = MemoryService(user).search(text, **query.validated_data)
    return {"results": [_item(memory.message, MAX_CHARS) for memory in result.memories]}


def fetch(user: User, arguments: dict[str, Any]) -> dict[str, Any]:
    """A message that may be recalled, with the turns around it. Five queries."""
    message = _find(user, arguments)
    if not memory_settings_of(user.pk).allow(message):
        raise ToolError(NOT_THERE)
    messages = message.conversation.messages.finished()
    place, border = Tuple(F("created_at"), F("id")), (message.created_at, message.pk)
    before = messages.filter(TupleLessThan(place, border)).order_by("-created_at", "-id")
    after = messages.filter(TupleGreaterThan(place, border)).order_by("created_at", "id")
    return _item(message) | {
        "before": [_item(row, MAX_CHARS, of=message) for row in reversed(before[:AROUND])],
        "after": [_item(row, MAX_CHARS, of=message) for row in after[:AROUND]],
    }


def remember_text(user: User, arguments: dict[str, Any]) -> dict[str, Any]:
    """The message that now holds the text, its title above it."""
    heading = HeadingSerializer(data={"title": arguments.get("title")})
    heading.is_valid(raise_exception=True)
    title, text = (heading.validated_data["title"] or "").strip(), arguments.get("text")
    if title and isinstance(text, str) and text.strip():
        text = f"{title}\n\n{text}"
    body = ContentSerializer(data={"content": text})
    body.is_valid(raise_exception=True)
    return _item(remember(user, body.validated_data["content"]), MAX_CHARS)


def forget(user: User, arguments: dict[str, Any]) -> dict[str, Any]:
    """Delete the message, as the API does."""
    message = _find(user, arguments)
    forgotten = _id(message)
    ChatService(message.conversation).delete(message)
    return {"forgotten": forgotten}


TOOLS: dict[str, Callable[[User, dict[str, Any]], dict[str, Any]]] = {
    "search": search,
    "fetch": fetch,
    "remember": remember_text,
    "forget": forget,
}


def _find(user: User, arguments: dict[str, Any]) -> Message:
    """The user's own message. Raises ToolError, the same for a wrong id and another user's."""
    given = arguments.get("id")
    parts = ID.fullmatch(given) if isinstance(given, str) else None
    if parts:
        rows = KINDS[parts[1]]._default_manager.of(user).finished()
        message: Message | None = (
            rows.select_related("conversation").filter(pk=int(parts[2])).first()
        )
        if message:
            return message
    raise ToolError(NOT_THERE)


def _id(message: Message) -> str:
    return f"{message.conversation.kind}-{message.pk}"


def _item(
    message: Message, max_chars: int | None = None, *, of: Message | None = None
) -> dict[str, Any]:
    """``of``: a message of the same conversation, which is loaded with it."""
    conversation, text = (of or message).conversation, message.content
    is_cut = max_chars is not None and len(text) > max_chars
    return {
        "id": f"{conversation.kind}-{message.pk}",
        "title": str(conversation),
        "text": f"{text[:max_chars]} […]" if is_cut else text,
        "role": str(message.role),
        "created_at": json_time(message.created_at),
    }


def _in_words(error: ValidationError) -> str:
    fields = error.detail if isinstance(error.detail, dict) else {"": error.detail}
    name, reasons = next(iter(fields.items()))
    reason = reasons[0] if isinstance(reasons, list) else reasons
    return f"{NAMES.get(name, name)}: {reason}"
