"""Messages, in one table for each kind of conversation."""

from typing import Any, Self

from django.conf import settings
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from chat.models.conversations import OwnedQuerySet, Passage, StandaloneChat
from retrieval.message_tables import MessageTable
from retrieval.models import Embedded, EmbeddedManager
from retrieval.schema.indexes import VectorIndex

USAGE = ("prompt_tokens", "completion_tokens", "cached_tokens")  # of an answer, in this order


class Role(models.TextChoices):
    """Who wrote a message."""

    USER = "user"
    ASSISTANT = "assistant"


class Status(models.TextChoices):
    """Where a message stands; every message of the user's is complete."""

    COMPLETE = "complete"
    STREAMING = "streaming"  # being generated: its text so far is in running_answers
    INTERRUPTED = "interrupted"  # ended early, with the text so far
    FAILED = "failed"  # ended without text


class MessageQuerySet(OwnedQuerySet):
    """Messages of either kind."""

    def in_order(self) -> Self:
        """Oldest first."""
        return self.order_by("created_at", "id")

    def finished(self) -> Self:
        """What may stand in a prompt: complete messages, and interrupted ones with text."""
        return self.filter(status__in=[Status.COMPLETE, Status.INTERRUPTED]).exclude(content="")


class Message(Embedded):
    """A message of the user's, or an answer.

    An answer has the id of the message that it answers (``reply_to``) and of those that its prompt
    held (``context``: ``[{"kind", "id", "score", "with": [id]}, {"history": [id]}]``). Neither is a
    foreign key: an id without a row says that the message was deleted and the answer is tainted.
    The history's entry may hold ``window``: the tokens of a prompt that the model's server accepted
    and of one that it refused. An entry ``{"finish_reason"}`` says why it cut the answer, one
    ``{"usage": [prompt, completion, cached], "model"}`` how many tokens of which model it used.
    """

    conversation: models.ForeignKey[Any, Any]
    conversation_id: int
    memories: list[Any] | None = None  # what ``context`` names, once looked up

    user = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="+", db_index=False
    )
    role = models.CharField(max_length=9, choices=Role.choices)
    content = models.TextField()
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())
    status = models.CharField(
        max_length=11, choices=Status.choices, default=Status.COMPLETE, db_default=Status.COMPLETE
    )
    edited_at = models.DateTimeField(null=True, blank=True)
    reply_to = models.BigIntegerField(null=True, blank=True)
    context = models.JSONField(null=True, blank=True)
    truncated = models.BooleanField(
        default=False, db_default=False, help_text="The prompt held the message cut."
    )
    error = models.CharField(
        max_length=20,
        null=True,
        blank=True,
        help_text="Why an answer is not complete; empty where the user stopped it.",
    )

    objects = EmbeddedManager.from_queryset(MessageQuerySet)()

    class Meta:
        abstract = True
        base_manager_name = "objects"

    def __str__(self) -> str:
        return f"{self.role} {self.pk}"

    @property
    def finish_reason(self) -> str | None:
        """``length`` or ``content_filter`` if the model's server cut the answer."""
        reasons = (entry.get("finish_reason") for entry in context_entries(self.context))
        return next(filter(None, reasons), None)

    @property
    def usage(self) -> dict[str, int] | None:
        """The tokens of an answer; None of one from before they were counted."""
        for entry in context_entries(self.context):
            match entry.get("usage"):
                case [int(prompt), int(completion), int(cached)]:
                    return dict(zip(USAGE, (prompt, completion, cached), strict=True))
        return None

    @property
    def model(self) -> str | None:
        """The language model that wrote an answer; None of one from before tokens were counted."""
        models = (entry.get("model") for entry in context_entries(self.context))
        return next(filter(None, models), None)


def context_entries(context: Any) -> list[dict[str, Any]]:
    """The entries of Message.context, without what other programs may have written there."""
    entries = context if isinstance(context, list) else []
    return [entry for entry in entries if isinstance(entry, dict)]


def _message_constraints(table: str) -> list[models.BaseConstraint]:
    return [
        models.CheckConstraint(condition=models.Q(role__in=Role.values), name=f"{table}_role"),
        models.CheckConstraint(
            condition=models.Q(status__in=Status.values), name=f"{table}_status"
        ),
    ]


def _list_indexes(prefix: str) -> list[models.Index]:
    """For the admin's lists: chat/message_lists/find.py."""
    return [
        models.Index(fields=["user", "id"], name=f"{prefix}_user"),
        models.Index(fields=["created_at", "id"], name=f"{prefix}_created"),
        models.Index(
            fields=["status", "id"],
            condition=models.Q(status__in=["failed", "interrupted"]),
            name=f"{prefix}_ended",
        ),
    ]


class ChatMessage(Message):
    """A message about a passage."""

    memory_table = MessageTable(1, "chat_messages", "passage_id", "passages")

    conversation = models.ForeignKey(
        Passage, models.CASCADE, related_name="messages", db_column="passage_id", db_index=False
    )

    class Meta(Message.Meta):
        db_table = "chat_messages"
        indexes = [
            models.Index(
                fields=["conversation", "created_at", "id"], name="chat_messages_in_order"
            ),
            VectorIndex(name="idx_chat_messages_embedding_user"),
            *_list_indexes("chat_messages"),
        ]
        constraints = _message_constraints("chat_messages")


class StandaloneChatMessage(Message):
    """A message of a standalone chat."""

    memory_table = MessageTable(0, "standalone_chat_messages", "chat_id", "standalone_chats")

    conversation = models.ForeignKey(
        StandaloneChat, models.CASCADE, related_name="messages", db_column="chat_id", db_index=False
    )

    class Meta(Message.Meta):
        db_table = "standalone_chat_messages"
        indexes = [
            models.Index(
                fields=["conversation", "created_at", "id"], name="standalone_messages_in_order"
            ),
            VectorIndex(name="idx_standalone_messages_embedding"),
            *_list_indexes("standalone_messages"),
        ]
        constraints = _message_constraints("standalone_chat_messages")


KINDS: dict[str, type[Message]] = {
    StandaloneChat.kind: StandaloneChatMessage,
    Passage.kind: ChatMessage,
}
