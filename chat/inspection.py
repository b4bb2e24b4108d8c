"""What an operator may see of messages: the state of their embeddings, and contents by permission.

For the admin. Each view of contents is a line in the audit log.
"""

from dataclasses import dataclass
from typing import Any

from django.db.models import CharField, Exists, OuterRef, Q, Subquery, Value
from django.db.models.functions import Left
from django.http import HttpRequest
from psycopg import sql

from chat.memory.recalled import attach_memories
from chat.models import MemorySwitch, Message, Status
from retrieval import audit, db
from retrieval.models import EmbeddingModel, MessageMemory

VIEW_CONTENT = "chat.view_content"
EXCERPT_CHARS = 120
EMBEDDED, PENDING, FAILED, OFF = "embedded", "pending", "failed", "off"
# Its numbers are never shown. Locks: nothing.
EMBEDDING = sql.SQL("""
    SELECT {vector}.vector_dims(embedding), {vector}.vector_norm(embedding)
    FROM {table} WHERE id = %(id)s
""")


@dataclass(frozen=True)
class EmbeddingDetails:
    """A stored vector: its model, its dimensions, and its length, 1 for most models."""

    model: str
    dimensions: int
    norm: float


def may_see_contents(request: HttpRequest) -> bool:
    user: Any = request.user
    return bool(user.has_perm(VIEW_CONTENT))


def with_excerpts(messages: Any) -> Any:
    """Each with the first EXCERPT_CHARS of its content as ``excerpt``."""
    return messages.annotate(excerpt=Left("content", EXCERPT_CHARS))


def with_states(messages: Any) -> Any:
    """Each with what ``state_of`` reads: a lookup by primary key for each row of a page."""
    off = MemorySwitch.objects.filter(user=OuterRef("user"), enabled=False)
    annotated = messages.annotate(is_off=Exists(off) | Q(conversation__memory=False))
    try:
        db.vector_type()
    except db.NoMemory:
        nothing = Value(None, output_field=CharField())
        return annotated.annotate(model_name=nothing, is_current=nothing, refusal=nothing)
    ref = OuterRef("pk") * 2 + messages.model.memory_table.kind_bit
    memory = MessageMemory.objects.filter(pk=ref)
    model = EmbeddingModel.objects.filter(pk=OuterRef("model"))
    return annotated.annotate(
        model_name=Subquery(memory.values(name=Subquery(model.values("name")))),
        is_current=Subquery(memory.values(current=Subquery(model.values("current")))),
        refusal=Subquery(memory.values("embedding_error")),
    )


def state_of(message: Any) -> str:
    """EMBEDDED, PENDING, FAILED or OFF, which an answer without text is too."""
    if message.is_off or message.status not in (Status.COMPLETE, Status.INTERRUPTED):
        return OFF
    if message.is_current:
        return EMBEDDED
    return FAILED if message.refusal else PENDING


def embedding_of(message: Message) -> EmbeddingDetails | None:
    """What is stored of its vector; None without one. Two statements."""
    try:
        db.vector_type()
    except db.NoMemory:
        return None
    memory = MessageMemory.objects.filter(pk=message.memory_table.pack_ref(message.pk))
    model = memory.exclude(model=None).values_list("model__name", flat=True).first()
    if model is None:
        return None
    statement = EMBEDDING.format(vector=db.VECTOR_SCHEMA, **message.memory_table.names)
    ((dimensions, norm),) = db.execute(statement, {"id": message.pk})
    return None if dimensions is None else EmbeddingDetails(str(model), dimensions, norm)


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
