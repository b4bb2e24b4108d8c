"""What an export of another chat product becomes: conversations with messages, each with a time.

chatgpt.py and claude.py read one conversation each; this module is what they share.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from hashlib import blake2b
from typing import Any, BinaryIO, NamedTuple

from chat.models import MAX_CONTENT_CHARS, Role
from chat.transfer.archive import read_conversations
from chat.transfer.json_lines import MAX_TITLE_CHARS
from chat.transfer.refusals import ImportRefusedError

STEP = timedelta(milliseconds=1)  # between messages whose order and times disagree
LATEST = datetime.max.replace(tzinfo=UTC) - STEP
MAX_ID_CHARS = 200  # with the product's name within Conversation.source
UNUSABLE = re.compile("[\x00\ud800-\udfff]")


class ProductMessage(NamedTuple):
    """``item``: its id in the export. ``at``: its time in UTC, None if the export has none."""

    item: str
    role: str
    text: str
    at: datetime | None


class ProductConversation(NamedTuple):
    """``name``: its id in the export. ``messages`` in order."""

    name: str
    title: str
    created_at: datetime | None
    messages: list[ProductMessage]


# Reads a conversation, and counts what it leaves out, by reason. Raises NotOfProductError.
Reader = Callable[[dict[str, Any], Counter[str]], ProductConversation]


class NotOfProductError(Exception):
    """The object is no conversation of this product."""


def read_export(
    file: BinaryIO, read: Reader, left_out: Counter[str]
) -> Iterator[ProductConversation]:
    """The conversations of an export that have messages. Counts into ``left_out`` meanwhile.

    Raises ImportRefusedError: not readable, or its first conversation is another product's.
    """
    is_first = True
    for parsed in read_conversations(file):
        try:
            conversation = read(parsed, left_out)
        except NotOfProductError as error:
            if is_first:
                raise ImportRefusedError(f"the file is no such export: {error}") from error
            left_out["unknown_conversation"] += 1
            continue
        is_first = False
        usable = [message for message in conversation.messages if _is_usable(message, left_out)]
        if usable:
            yield conversation._replace(
                title=clean(conversation.title).strip()[:MAX_TITLE_CHARS],
                messages=_in_time(usable, conversation.created_at),
            )


def _is_usable(message: ProductMessage, left_out: Counter[str]) -> bool:
    if not message.text.strip():
        left_out["no_text"] += 1
    elif message.role == Role.USER and len(message.text) > MAX_CONTENT_CHARS:
        left_out["too_long"] += 1
    else:
        return True
    return False


def _in_time(messages: list[ProductMessage], begun: datetime | None) -> list[ProductMessage]:
    """Order wins over times: one that is missing or too early becomes the one before plus STEP."""
    known = (message.at for message in messages if message.at)
    last = begun or next(known, None) or datetime.now(UTC)
    in_time: list[ProductMessage] = []
    for message in messages:
        at = message.at
        if in_time and (at is None or at < last):
            at = min(last, LATEST) + STEP
        last = at or last
        in_time.append(message._replace(text=clean(message.text), at=last))
    return in_time


def clean(text: str) -> str:
    """The text without NUL and halves of surrogate pairs, which PostgreSQL cannot store."""
    return UNUSABLE.sub("\ufffd", text)


def path_to_root(leaf: str, parents: dict[str, str | None]) -> list[str]:
    """The ids from the root to the leaf. Raises NotOfProductError for a circle."""
    path: list[str] = []
    node: str | None = leaf
    while node is not None and node in parents:
        path.append(node)
        node = parents[node]
        if len(path) > len(parents):
            raise NotOfProductError("its messages follow each other in a circle")
    return path[::-1]


def id_of(value: object, what: str) -> str:
    """Raises NotOfProductError: no text of a usable length."""
    if isinstance(value, str) and 0 < len(value) <= MAX_ID_CHARS and value.isprintable():
        return value
    raise NotOfProductError(f"{what} is missing")


def text_of(value: object) -> str:
    return value if isinstance(value, str) else ""


def key_of(conversation: str, item: str = "") -> int:
    """The ImportedItem.key of a message, or of its conversation."""
    digest = blake2b(
        f"{conversation}\n{item}".encode("utf-8", "surrogatepass"), digest_size=8
    ).digest()
    return int.from_bytes(digest, "big", signed=True)
