"""Which of its user's chats a client means by an id of its own: the table client_chats.

On a schema before chat 0015_client_chats no id is known, and none is kept.
"""

from contextlib import suppress

from chat.models import StandaloneChat
from retrieval.later_table import LaterTable, MissingTableError
from retrieval.queries import rows

_table = LaterTable("client_chats")
# Locks: nothing.
FIND = "SELECT chat_id FROM client_chats WHERE user_id = %(user)s AND client_id = %(id)s"
# Only if the id still means what it meant before. Locks: the row.
POINT = """
    INSERT INTO client_chats AS c (user_id, client_id, chat_id)
    VALUES (%(user)s, %(id)s, %(chat)s)
    ON CONFLICT (user_id, client_id) DO UPDATE SET chat_id = excluded.chat_id
    WHERE c.chat_id = %(before)s
    RETURNING 1
"""


def has_table() -> bool:
    """Whether ids are kept on this schema. At most one query a minute."""
    return _table.may_write()


def find_chat(user_id: int, client_id: str) -> int | None:
    """The id of the chat that the client's id means; None if it is unknown. One query."""
    with suppress(MissingTableError), _table.required():
        chat_ids = rows(FIND, {"user": user_id, "id": client_id})
        return int(chat_ids[0][0]) if chat_ids else None
    return None


def point_to(chat: StandaloneChat, client_id: str, *, before: int | None) -> bool:
    """Let the id mean this chat; False if it means another one than ``before`` by now."""
    params = {"user": chat.user_id, "id": client_id, "chat": chat.pk, "before": before}
    with suppress(MissingTableError), _table.required():
        return bool(rows(POINT, params))
    return True
