"""The conversation that a request names: a read that each of its requests makes."""

from django.db.models import BigIntegerField
from psycopg import sql

from chat.model_rows import ModelRow
from chat.models import Conversation, Passage, StandaloneChat
from retrieval.queries import rows

Model = type[StandaloneChat] | type[Passage]
ROWS: dict[Model, ModelRow[Conversation]] = {
    model: ModelRow(model, alias="c") for model in (StandaloneChat, Passage)
}
# By its id: "+ 0" keeps the planner from indexes of users, who may have thousands. Locks: nothing.
FIND = {
    model: sql.SQL("SELECT {columns} FROM {table} c WHERE id = %(id)s AND user_id + 0 = %(user)s")
    .format(columns=row.columns, table=sql.Identifier(model._meta.db_table))
    .as_string()
    for model, row in ROWS.items()
}


def find_conversation(model: Model, pk: int, *, user_id: int) -> Conversation | None:
    """The user's own conversation; None if there is none, and for another user's. One query."""
    if pk > BigIntegerField.MAX_BIGINT:
        return None  # a numeric, with which no index could be used
    matches = rows(FIND[model], {"id": pk, "user": user_id})
    return ROWS[model].instance(matches[0]) if matches else None
