"""Exports conversations as lines, in an order that an import and a second export keep."""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from typing import Any

from django.contrib.auth import get_user_model
from django.db.models.functions import Collate
from psycopg import sql

from chat.models import KINDS, Message, Passage, StandaloneChat, Status
from chat.transfer.json_lines import Details, Line
from retrieval.queries import rows

PAGE = 2_000  # rows a query; of messages at most 64 MB of text, typically 1 MB
BEGINNING = datetime.min.replace(tzinfo=UTC)
# A conversation without a name is called by its kind and id; if that name is taken, `chat 17 (2)`,
# and so on. Locks nothing.
CONVERSATIONS = sql.SQL("""
    SELECT id, name, title, body, memory, created_at FROM (
        SELECT c.id, {details}, c.memory, c.created_at, coalesce(nullif(c.source, ''), (
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
DETAILS = {
    StandaloneChat.kind: sql.SQL("c.title, NULL::text AS body"),
    Passage.kind: sql.SQL("c.reference AS title, c.text AS body"),
}


@dataclass(frozen=True)
class ExportedConversation:
    """A conversation's name in the export, and what its first line says about it."""

    pk: int
    name: str
    details: Details


def export_lines(user: Any | None) -> Iterator[bytes]:
    """The messages of one user, or of all, as lines; without answers that are being written.

    Ordered by user, kind, conversation, created_at, id; names by their code points. One query for
    each page of 2,000 rows, no transaction: what is written meanwhile may or may not be exported.
    """
    for owner_id, username in _users() if user is None else [(user.pk, user.get_username())]:
        for kind, model in KINDS.items():
            for conversation in _conversations(owner_id, kind, model):
                messages = _messages(model, conversation.pk)
                name = conversation.name
                for message in islice(messages, 1):
                    first = Line(kind, username, name, *message, conversation.details)
                    yield first.without_defaults().as_bytes()
                for message in messages:
                    yield Line(kind, username, name, *message).as_bytes()


def _users() -> Iterator[tuple[int, str]]:
    named = (
        get_user_model()._default_manager.annotate(name=Collate("username", "C")).order_by("name")
    )
    after = ""
    while page := list(named.filter(name__gt=after).values_list("pk", "name")[:PAGE]):
        yield from page
        after = page[-1][1]


def _conversations(user_id: int, kind: str, model: type[Message]) -> Iterator[ExportedConversation]:
    names = {"kind": sql.Literal(kind), "details": DETAILS[kind]} | model.memory_table.names
    query = CONVERSATIONS.format(**names)
    after = ""
    while page := rows(query, {"user": user_id, "after": after, "page": PAGE}):
        for pk, name, title, text, memory, created_at in page:
            yield ExportedConversation(pk, name, Details(title, text, memory, created_at))
        if len(page) < PAGE:
            return
        after = page[-1][1]


def _messages(
    model: type[Message], conversation_id: int
) -> Iterator[tuple[str, str, datetime, str]]:
    messages = (
        model.objects.filter(conversation_id=conversation_id)
        .exclude(status=Status.STREAMING)
        .exclude(status=Status.COMPLETE, content="")
        .in_order()
    )
    at, pk = BEGINNING, 0
    while True:
        rest = messages.filter(created_at__gte=at).exclude(created_at=at, pk__lte=pk)
        page = list(rest.values_list("role", "content", "created_at", "status", "pk")[:PAGE])
        yield from (row[:4] for row in page)
        if len(page) < PAGE:
            return
        at, pk = page[-1][2], page[-1][4]
