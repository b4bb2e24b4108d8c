"""What chats hold, as digests of their messages' texts: read without the texts.

The digest is that of the index standalone_messages_text (chat 0021_text_digests). On a schema
before it no chat is looked for by what it holds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from psycopg import sql

from chat.models import StandaloneChatMessage
from chat.openai_api.text_turns import DIGEST_BYTES, TextMessage, TextTurn, text_turns
from retrieval.queries import rows, value
from retrieval.runtime import Expiring
from retrieval.sql_files import read_statements

LOOK_AGAIN_S = 60.0  # a running server notices a migration within this time: docs/promises.md
MAX_CHATS = 5  # that are compared: equal answers in more chats than that are greetings
MAX_MESSAGES = 100  # with equal texts, among which the newest chats are found
SPARE_ROWS = 400  # of a chat that are read beyond what the client sends
# A vertical tab is \x0B: PostgreSQL 16 reads E'\v' as the letter v.
DIGEST = sql.SQL(r"""
    substr(sha256(decode(replace(btrim(replace(replace(content, E'\r\n', E'\n'), E'\r', E'\n'),
        E' \t\n\x0B\f'), E'\\', E'\\\\'), 'escape')), 1, 16)
""")
STATEMENTS = {
    name: statement.format(digest=DIGEST).as_string()
    for name, statement in read_statements(Path(__file__).with_name("outlines.sql")).items()
}
HAS_INDEX = """
    SELECT coalesce((SELECT i.indisvalid FROM pg_catalog.pg_index i
        WHERE i.indexrelid = pg_catalog.to_regclass('standalone_messages_text')), false)
"""
_has_index: Expiring[bool] = Expiring()


@dataclass(frozen=True)
class Outline:
    """A chat's latest messages. ``turns``: whole ones, with an answer that has text.

    ``open``: the last message of the user's if it has no such answer, with the id of the failed one
    if there is one. ``is_broken``: the last answer broke off.
    """

    chat_id: int
    turns: list[TextTurn]
    open: TextTurn | None
    is_broken: bool
    last_id: int | None


def chats_with(user_id: int, digest: bytes) -> list[int]:
    """The user's newest chats with a message of this digest, newest first. One query."""
    if not has_index():
        return []
    params = {
        "user": user_id,
        "digest": digest,
        "max_messages": MAX_MESSAGES,
        "max_chats": MAX_CHATS,
    }
    return value(STATEMENTS["chats_with"], params) or []


def outlines(user_id: int, chats: Sequence[int], *, sent_turns: int) -> list[Outline]:
    """Of the user's chats with these ids, in their order. One query."""
    if not chats:
        return []
    max_rows = 2 * sent_turns + SPARE_ROWS
    params = {"user": user_id, "chats": list(chats), "max_rows": max_rows}
    return [
        _outline(chat_id, ids or [], kinds or "", bytes(digests or b""))
        for chat_id, ids, kinds, digests in rows(STATEMENTS["outlines"], params)
    ]


def last_message_of(chat_id: int) -> int | None:
    """The id of the chat's last message. One query."""
    messages = StandaloneChatMessage.objects.filter(conversation_id=chat_id)
    return messages.in_order().values_list("id", flat=True).last()


def has_index() -> bool:
    """Whether chats can be found by their history. At most one query in LOOK_AGAIN_S."""
    known = _has_index.get()
    return _has_index.set(bool(value(HAS_INDEX)), seconds=LOOK_AGAIN_S) if known is None else known


def _outline(chat_id: int, ids: list[int], kinds: str, digests: bytes) -> Outline:
    parts = [digests[at : at + DIGEST_BYTES] for at in range(0, len(digests), DIGEST_BYTES)]
    messages = [
        TextMessage(kind == "u", digest, pk)
        for pk, kind, digest in zip(ids, kinds, parts, strict=True)
        if kind != "f"
    ]
    turns = text_turns(messages)
    last = None
    if turns and turns[-1].answer is None:
        last = turns[-1]
        if kinds.endswith("f"):
            last = TextTurn(last.question, TextMessage(False, b"", ids[-1]))
    whole = [turn for turn in turns if turn.answer]
    return Outline(chat_id, whole, last, kinds.endswith("b"), ids[-1] if ids else None)
