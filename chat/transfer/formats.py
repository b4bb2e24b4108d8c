"""The formats of imports: lines of our own, and the exports of other products."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import count
from typing import Any, BinaryIO

from django.contrib.auth.models import User
from django.db import connection, transaction

from chat.models import StandaloneChat, Status
from chat.transfer import chatgpt, claude, imported_items, importing, json_lines
from chat.transfer.imported_items import Record
from chat.transfer.importing import Imported
from chat.transfer.product_export import (
    ProductConversation,
    Reader,
    key_of,
    read_export,
)
from retrieval.backfill.estimate import count_tokens

LINES = "jsonl"
PRODUCTS: dict[str, Reader] = {
    "chatgpt": chatgpt.read_conversation,
    "claude": claude.read_conversation,
}
FORMATS = (LINES, *PRODUCTS)


@dataclass
class Progress:
    """How much of a file is read; another thread may look at it."""

    conversations: int = 0
    messages: int = 0


@dataclass
class Preview:
    """What an import would add, and the tokens to embed it."""

    conversations: int = 0
    messages: int = 0
    left_out: dict[str, int] = field(default_factory=dict)
    tokens: int = 0


def import_file(file: BinaryIO, record: Record, user: User, *, progress: Progress) -> Imported:
    """Add what the file holds that is not there, in one transaction, and note what it was.

    Raises what ``importing.import_rows`` raises.
    """
    result = Imported()
    rows = _rows(file, record.format, user, result, progress)
    return importing.import_rows(rows, result, record=record)


def preview_export(file: BinaryIO, format_name: str, user: User, *, progress: Progress) -> Preview:
    """What ``import_file`` would add of a product's export. Changes nothing, calls no service.

    Equal texts are counted once, as they are bought. Raises as ``import_file`` does.
    """
    result = Imported()
    rows = _rows(file, format_name, user, result, progress)
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        importing.copy_rows(cursor, rows)
        importing.find_users(cursor)
        imported_items.leave_out_known(cursor, result)
        cursor.execute(imported_items.SQL["count_lines"])
        conversations, messages = cursor.fetchone()
        preview = Preview(conversations, messages, dict(+result.left_out))
        with connection.chunked_cursor() as texts:
            texts.execute(imported_items.SQL["new_texts"])
            preview.tokens = sum(count_tokens(text) for (text,) in texts)
    return preview


def _rows(
    file: BinaryIO, format_name: str, user: User, result: Imported, progress: Progress
) -> Iterator[tuple[Any, ...]]:
    name = user.get_username()
    if format_name != LINES:
        conversations = read_export(file, PRODUCTS[format_name], result.left_out)
        return _rows_of_export(conversations, name, progress)

    def show(lines: int) -> None:
        progress.messages = lines

    lines = json_lines.read(file)
    return importing.rows_of_lines(lines, result, progress=show, owner=name)


def _rows_of_export(
    conversations: Iterable[ProductConversation], username: str, progress: Progress
) -> Iterator[tuple[Any, ...]]:
    numbers = count(1)
    for name, title, created_at, messages in conversations:
        begun = created_at or messages[0].at
        conversation_key = key_of(name)
        progress.conversations += 1
        progress.messages += len(messages)
        for item, role, text, at in messages:
            of_message = (next(numbers), StandaloneChat.kind, username, name, role, text, at)
            of_conversation = (title, None, None, begun)
            keys = (key_of(name, item), conversation_key)
            yield *of_message, Status.COMPLETE, *of_conversation, *keys
