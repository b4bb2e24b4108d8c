"""Exports conversations as lines, in an order that an import and a second export keep."""

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models.functions import Collate
from psycopg import sql

from chat.models import KINDS, Message
from chat.transfer.json_lines import Line
from retrieval.queries import rows

PAGE = 2_000  # rows a query; of messages at most 64 MB of text, typically 1 MB
BEGINNING = datetime.min.replace(tzinfo=UTC)
# A conversation without a name is called by its kind and id; if that name is taken, `chat 17 (2)`,
# and so on. Locks nothing.
CONVERSATIONS = sql.SQL("""
    SELECT id, name FROM (
        SELECT c.id, coalesce(nullif(c.source, ''), (
            WITH RECURSIVE tried (name, times) AS (
                SELECT {kind} || ' ' || c.id, 1
                UNION ALL
                SELECT {kind} || ' ' || c.id || ' (' || times + 1 || ')', times + 1
                FROM tried WHERE EXISTS (
                    SELECT FROM {conversations} t
                    WHERE t.user_id = c.user_id AND t.source = tried.name)
            )
            SELECT tried.name FROM tried ORDER BY times DESC LIMIT 1
        )) COLLATE "C" AS name
        FROM {conversations} c WHERE c.user_id = %(user)s
    ) named
    WHERE name > %(after)s ORDER BY name LIMIT %(page)s
""")


def export_lines(user: Any | None) -> Iterator[bytes]:
    """The messages of one user, or of all, as lines; without failed and unfinished answers.

    Ordered by user, kind, conversation, created_at, id; names by their code points. One query for
    each page of 2,000 rows, no transaction: what is written meanwhile may or may not be exported.
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
    query = CONVERSATIONS.format(kind=sql.Literal(kind), **model.memory_table.names)
    after = ""
    while page := rows(query, {"user": user_id, "after": after, "page": PAGE}):
        yield from page
        if len(page) < PAGE:
            return
        after = page[-1][1]


def _messages(model: type[Message], conversation_id: int) -> Iterator[tuple[str, str, datetime]]:
    messages = model.objects.filter(conversation_id=conversation_id).finished().in_order()
    at, pk = BEGINNING, 0
    while True:
        rest = messages.filter(created_at__gte=at).exclude(created_at=at, pk__lte=pk)
        page = list(rest.values_list("role", "content", "created_at", "pk")[:PAGE])
        yield from (row[:3] for row in page)
        if len(page) < PAGE:
            return
        at, pk = page[-1][2:]
