"""What an operator may see of messages: the state of their embeddings, and contents by permission.

For the admin. Each view of contents is a line in the audit log.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import Q
from django.db.models.functions import Left, Length
from django.http import HttpRequest
from psycopg import sql

from chat.memory.recalled import attach_memories
from chat.message_lists import states
from chat.models import Conversation, Message
from retrieval import audit, db

VIEW_CONTENT = "chat.view_content"
EXCERPT_CHARS = 120
SHOWN_MESSAGES = 50  # of a conversation, on a page
SHOWN_CHARS = 2_000  # of each of them; its own page has all
# Its numbers are never shown. Locks: nothing.
EMBEDDING = sql.SQL("""
    SELECT {vector}.vector_dims(m.embedding), {vector}.vector_norm(m.embedding), (
        SELECT p.embedding_error FROM message_memories p WHERE p.id = {message_ref})
    FROM {table} m WHERE m.id = %(id)s
""")


@dataclass(frozen=True)
class EmbeddingDetails:
    """A stored vector's dimensions and length, 1 for most models; or why there is none."""

    dimensions: int | None = None
    norm: float | None = None
    refusal: str | None = None


def may_see_contents(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm(VIEW_CONTENT))


def with_excerpts(messages: Any) -> Any:
    """Each with the first EXCERPT_CHARS of its content as ``excerpt``."""
    return messages.annotate(excerpt=Left("content", EXCERPT_CHARS))


def add_embedding(message: Any) -> None:
    """Set ``state``, ``model_name`` and ``embedding_details`` of the message. Two statements."""
    states.add_states(message.memory_table, [message])
    message.embedding_details = _embedding_of(message)


def _embedding_of(message: Message) -> EmbeddingDetails:
    try:
        statement = EMBEDDING.format(vector=db.VECTOR_SCHEMA, **message.memory_table.names)
        rows = db.execute(statement, {"id": message.pk})
    except db.NoMemory:
        return EmbeddingDetails()
    return EmbeddingDetails(*rows[0]) if rows else EmbeddingDetails()


def messages_of(
    conversation: Conversation, *, before: int | None, with_text: bool
) -> tuple[list[Any], int | None]:
    """The newest SHOWN_MESSAGES before the message ``before``, in order; the id to go on from.

    Each with its ``state``, the number of its ``chars``, and ``with_text`` the first SHOWN_CHARS of
    its ``text``. At most three statements.
    """
    rows = conversation.messages.order_by("-created_at", "-pk").defer("content", "context")
    if start := before and conversation.messages.filter(pk=before).only("created_at").first():
        same_time = Q(created_at=start.created_at, pk__gte=start.pk)
        rows = rows.filter(created_at__lte=start.created_at).exclude(same_time)
    rows = rows.annotate(chars=Length("content"))
    if with_text:
        rows = rows.annotate(text=Left("content", SHOWN_CHARS))
    newest = list(rows[: SHOWN_MESSAGES + 1])
    shown = newest[:SHOWN_MESSAGES][::-1]
    states.add_states(rows.model.memory_table, shown)
    return shown, shown[0].pk if len(newest) > SHOWN_MESSAGES else None


def context_of(answer: Message) -> list[Message]:
    """The messages that the answer was given from memory, without those that were deleted."""
    attach_memories([answer])
    return [memory.message for memory in answer.memories or []]


def record_list(request: HttpRequest, what: str) -> None:
    """A line in the audit log for a list with contents, with its filter."""
    if may_see_contents(request):
        chosen = f" ?{request.GET.urlencode()}" if request.GET else ""
        audit.record(_viewer(request), f"list of {what}{chosen}")


def record_page(request: HttpRequest, what: str, *, whose: Any) -> None:
    """A line in the audit log for a page with contents."""
    if may_see_contents(request):
        audit.record(_viewer(request), f"page of {what}", whose=whose)


def _viewer(request: HttpRequest) -> Any:
    return request.user
