"""What Verse keeps: conversations of two kinds and their messages.

Every column beyond a message's user, conversation, role, content and time is nullable or has a ``db_default``:
rows written by SQL, or by a version that does not know the column, stay valid.
"""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.contrib.postgres.fields import ArrayField
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from retrieval.message_tables import MessageTable
from retrieval.models import Embedded, EmbeddedManager
from retrieval.schema.indexes import VectorIndex

MAX_CONTENT_CHARS = 32_000  # docs/api.md


class Role(models.TextChoices):
    """Who said a message."""

    USER = "user"
    ASSISTANT = "assistant"


class Status(models.TextChoices):
    """How far a message is; only an answer can be other than complete."""

    COMPLETE = "complete"
    STREAMING = "streaming"  # being given: its text so far is in running_answers
    INTERRUPTED = "interrupted"  # ended early, with what was said until then
    FAILED = "failed"  # ended without a word


class OwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to a user each."""

    def of(self, user: Any) -> Self:
        """The user's own rows: every query that answers a person begins here."""
        return self.filter(user=user)


class MessageQuerySet(OwnedQuerySet):
    """Messages of either kind."""

    def in_order(self) -> Self:
        """Oldest first."""
        return self.order_by("created_at", "id")

    def said(self) -> Self:
        """What counts as history: complete messages, and interrupted ones that hold text."""
        return self.filter(status__in=[Status.COMPLETE, Status.INTERRUPTED]).exclude(content="")


class Conversation(models.Model):
    """One exchange between a user and Verse; ``kind`` names its sort in addresses and in memories."""

    kind: ClassVar[str]
    messages: Any  # the manager of its messages

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    memory = models.BooleanField(
        default=True,
        db_default=True,
        help_text="Off: its messages neither recall nor are recalled or embedded.",
    )
    source = models.CharField(
        max_length=255,
        null=True,
        blank=True,
        editable=False,
        help_text="Its name in the file that it was imported from.",
    )
    created_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)
    updated_at = models.DateTimeField(default=timezone.now, db_default=Now(), editable=False)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        abstract = True


class Passage(Conversation):
    """A text that one talks about, with its reference such as ``John 3:16-21``."""

    kind = "passage"

    reference = models.CharField(max_length=200)
    text = models.TextField(validators=[MaxLengthValidator(MAX_CONTENT_CHARS)])

    class Meta:
        db_table = "passages"
        constraints = [
            # The target of the messages' composite key.
            models.UniqueConstraint(fields=["id", "user"], name="passages_id_user"),
            models.UniqueConstraint(fields=["user", "source"], name="passages_user_source"),
        ]

    def __str__(self) -> str:
        return self.reference


class StandaloneChat(Conversation):
    """A conversation about anything."""

    kind = "chat"

    title = models.CharField(max_length=200, blank=True, default="", db_default="")

    class Meta:
        db_table = "standalone_chats"
        constraints = [
            models.UniqueConstraint(fields=["id", "user"], name="standalone_chats_id_user"),
            models.UniqueConstraint(fields=["user", "source"], name="standalone_chats_user_source"),
        ]

    def __str__(self) -> str:
        return self.title or f"Chat {self.pk}"


class Message(Embedded):
    """One thing said, by the user or by Verse.

    ``reply_to`` (of an answer) is the id of the message answered, and ``context`` lists what the answer was given:
    ``[{"kind", "id", "score", "with": [id]}, {"history": [id]}]``. Neither is a foreign key: an id that leads nowhere
    tells that the message was forgotten, and so that this answer may hold what was to be forgotten.
    """

    conversation: models.ForeignKey[Any, Any]
    conversation_id: int
    memories: list[Any] | None = None  # what ``context`` names, where somebody has looked it up

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
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


def _message_constraints(table: str) -> list[models.BaseConstraint]:
    return [
        models.CheckConstraint(condition=models.Q(role__in=Role.values), name=f"{table}_role"),
        models.CheckConstraint(
            condition=models.Q(status__in=Status.values), name=f"{table}_status"
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
        ]
        constraints = _message_constraints("standalone_chat_messages")


class OfOneConversation(models.Model):
    """A row about one conversation of either kind: exactly one of ``passage`` and ``chat`` is set."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")

    class Meta:
        abstract = True


def _one_conversation(table: str) -> models.CheckConstraint:
    one = models.Q(passage__isnull=True, chat__isnull=False) | models.Q(
        passage__isnull=False, chat__isnull=True
    )
    return models.CheckConstraint(condition=one, name=f"{table}_one_conversation")


class RunningAnswer(OfOneConversation):
    """An answer being given: its text so far, when its process last showed life, whether it was asked to stop.

    A conversation has one at the most. The row grows here and not in the message's table, whose indexes would
    be written at each step; whoever finds ``alive_at`` too old ends the answer as interrupted.
    """

    passage = models.OneToOneField(Passage, models.CASCADE, null=True, related_name="running")
    chat = models.OneToOneField(StandaloneChat, models.CASCADE, null=True, related_name="running")
    message_id = models.BigIntegerField()
    text = models.TextField(default="", db_default="")
    started_at = models.DateTimeField(db_default=Now())
    alive_at = models.DateTimeField(db_default=Now())
    stop_asked = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "running_answers"
        constraints = [_one_conversation("running_answers")]


class IdempotencyKey(OfOneConversation):
    """A key that a client sent with a message: the same key again finds the message instead of adding one.

    ``digest`` is the SHA-256 of what was asked, so that a key sent with something else is noticed.
    """

    passage = models.ForeignKey(
        Passage, models.CASCADE, null=True, related_name="+", db_index=False
    )
    chat = models.ForeignKey(
        StandaloneChat, models.CASCADE, null=True, related_name="+", db_index=False
    )
    key = models.CharField(max_length=255)
    digest = models.BinaryField(max_length=32)
    message_id = models.BigIntegerField(null=True)
    created_at = models.DateTimeField(db_default=Now(), db_index=True)

    class Meta:
        db_table = "idempotency_keys"
        constraints = [
            _one_conversation("idempotency_keys"),
            models.UniqueConstraint(fields=["passage", "key"], name="idempotency_keys_passage"),
            models.UniqueConstraint(fields=["chat", "key"], name="idempotency_keys_chat"),
        ]


class MemorySwitch(models.Model):
    """A user's own switch; no row means on."""

    user = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, primary_key=True, related_name="+"
    )
    enabled = models.BooleanField(default=True, db_default=True)
    changed_at = models.DateTimeField(default=timezone.now, db_default=Now())

    class Meta:
        db_table = "memory_switches"


class RateWindow(models.Model):
    """When something counted happened lately, such as a user's messages; one row a name, for all processes."""

    name = models.CharField(max_length=200, primary_key=True)
    hits = ArrayField(models.DateTimeField())

    class Meta:
        db_table = "rate_windows"


class ApiToken(models.Model):
    """A token of the REST API; only its SHA-256 is kept."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")
    name = models.CharField(max_length=100, blank=True, default="", db_default="")
    digest = models.BinaryField(max_length=32, unique=True)
    created_at = models.DateTimeField(default=timezone.now, db_default=Now())
    last_used_at = models.DateTimeField(null=True, blank=True)

    objects = OwnedQuerySet.as_manager()

    class Meta:
        db_table = "api_tokens"

    def __str__(self) -> str:
        return self.name or f"Token {self.pk}"
