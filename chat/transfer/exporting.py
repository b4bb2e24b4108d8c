"""The database's conversations as lines, in an order that an import and a second export keep."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db import connection
from django.db.models.functions import Collate

from chat.models import Message
from chat.transfer.lines import KINDS, Line

PAGE = 2_000  # rows a query; of messages at most 64 MB of text, some 1 MB as people write
BEGINNING = datetime.min.replace(tzinfo=UTC)
# One without a name of its own is called by its id; where another has that name already, `chat 17 (2)`, and so on.
CONVERSATIONS = """
    SELECT id, name FROM (
        SELECT c.id, coalesce(nullif(c.source, ''), (
            WITH RECURSIVE tried (name, times) AS (
                SELECT '{kind} ' || c.id, 1
                UNION ALL
                SELECT '{kind} ' || c.id || ' (' || times + 1 || ')', times + 1 FROM tried
                WHERE EXISTS (SELECT FROM {parents} t WHERE t.user_id = c.user_id AND t.source = tried.name)
            )
            SELECT tried.name FROM tried ORDER BY times DESC LIMIT 1
        )) COLLATE "C" AS name
        FROM {parents} c WHERE c.user_id = %(user)s
    ) named
    WHERE name > %(after)s ORDER BY name LIMIT %(page)s
"""


def export_lines(user: Any | None) -> Iterator[bytes]:
    """One user's messages, or everybody's, as lines; answers failed or still being given are left out.

    Ordered by user, kind, conversation, created_at, id; names by their code points. Pages of 2,000 rows, each a query
    of its own: no transaction is kept open, and what is written meanwhile may or may not be in it.
    """
    for owner_id, username in _users() if user is None else [(user.pk, user.get_username())]:
        for kind, model in KINDS.items():
            for conversation_id, name in _conversations(owner_id, kind, model):
                for role, content, created_at in _messages(model, conversation_id):
                    yield Line(kind, username, name, role, content, created_at).as_bytes()


def _users() -> Iterator[tuple[int, str]]:
    named = (
        get_user_model()._default_manager.annotate(name=Collate("username", "C")).order_by("name")
    )
    after = ""
    while page := list(named.filter(name__gt=after).values_list("pk", "name")[:PAGE]):
        yield from page
        after = page[-1][1]


def _conversations(user_id: int, kind: str, model: type[Message]) -> Iterator[tuple[int, str]]:
    parents = model._meta.get_field("conversation").related_model._meta.db_table
    after = ""
    while page := _fetch(
        CONVERSATIONS.format(kind=kind, parents=parents), user=user_id, after=after, page=PAGE
    ):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][1]


def _fetch(sql: str, **values: Any) -> list[Any]:
    with connection.cursor() as cursor:
        cursor.execute(sql, values)
        return list(cursor.fetchall())


def _messages(model: type[Message], conversation_id: int) -> Iterator[tuple[str, str, datetime]]:
    said = model.objects.filter(conversation_id=conversation_id).said().in_order()
    at, pk = BEGINNING, 0
    while True:
        rest = said.filter(created_at__gte=at).exclude(created_at=at, pk__lte=pk)
        page = list(rest.values_list("role", "content", "created_at", "pk")[:PAGE])
        yield from (row[:3] for row in page)
        if len(page) < PAGE:
            return
        at, pk = page[-1][2:]
