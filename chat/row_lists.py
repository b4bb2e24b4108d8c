"""Lists of a user's rows, and of a conversation's messages: what most requests read.

To compose such a query by the ORM takes a quarter of a request for an empty list.
"""

from datetime import datetime, timedelta
from itertools import product
from typing import Generic, TypeVar

from django.db.models import Model
from psycopg import sql

from chat.model_rows import ModelRow
from chat.models import (
    ApiToken,
    ChatMessage,
    MemoryImport,
    Message,
    Passage,
    StandaloneChat,
    StandaloneChatMessage,
)
from retrieval.queries import rows
from retrieval.replica import reading

M = TypeVar("M", bound=Model)
MAX_UTC_OFFSET = timedelta(hours=15, minutes=59)  # PostgreSQL refuses a greater one
# The border compares the owner too: by time and id alone the planner may read an index of all
# users' messages, and with them whatever others have written since. Locks: nothing.
SELECT = sql.SQL("""
    SELECT {columns} FROM {table} r WHERE r.{owner} = %(owner)s {border}
    ORDER BY r.created_at {direction}, r.id {direction} LIMIT %(limit)s
""")
AFTER = sql.SQL("AND (r.{owner}, r.created_at, r.id) > (%(owner)s, %(at)s, %(id)s)")
BEFORE = sql.SQL("AND (r.{owner}, r.created_at, r.id) < (%(owner)s, %(at)s, %(id)s)")


def is_storable(time: datetime) -> bool:
    """Whether PostgreSQL takes the time: it has a zone, and none that is too far from UTC."""
    offset = time.utcoffset()
    return offset is not None and abs(offset) <= MAX_UTC_OFFSET


class RowList(Generic[M]):
    """The rows of a model, each of the owner that its column ``owner`` names, by time and id.

    ``statements``: by whether the order is ascending, and whether there is a border.
    """

    def __init__(self, model: type[M], *, owner: str) -> None:
        self._row = ModelRow(model, alias="r", without={"embedding"})
        table = sql.Identifier(model._meta.db_table)
        column = sql.Identifier(owner)
        borders = {True: AFTER.format(owner=column), False: BEFORE.format(owner=column)}
        self.statements = {
            (ascending, has_border): SELECT.format(
                columns=self._row.columns,
                table=table,
                owner=column,
                border=borders[ascending] if has_border else sql.SQL(""),
                direction=sql.SQL("ASC" if ascending else "DESC"),
            ).as_string()
            for ascending, has_border in product((True, False), repeat=2)
        }

    def read(
        self,
        owner_id: int,
        border: tuple[datetime, int] | None,
        *,
        ascending: bool,
        limit: int,
        replica_for: int | None = None,
    ) -> list[M]:
        """The first rows behind the border, a time and an id; None: of all. One query.

        ``replica_for``: the user whose rows they are, if they may be read from the replica.
        """
        at, pk = border or (None, None)
        params = {"owner": owner_id, "at": at, "id": pk, "limit": limit}
        statement = self.statements[ascending, border is not None]

        def select() -> list[M]:
            selected = rows(statement, params, connection=reading.database())
            return [self._row.instance(values) for values in selected]

        return select() if replica_for is None else reading.read(replica_for, select)


TOKEN_LIST = RowList(ApiToken, owner="user_id")
IMPORT_LIST = RowList(MemoryImport, owner="user_id")
CONVERSATION_LISTS = {model: RowList(model, owner="user_id") for model in (StandaloneChat, Passage)}
MESSAGE_LISTS: dict[type[Message], RowList[Message]] = {
    model: RowList(model, owner=model.conversation.field.column)
    for model in (ChatMessage, StandaloneChatMessage)
}
