"""Conversations of two kinds: about a passage, or free."""

from typing import Any, ClassVar, Self

from django.conf import settings
from django.core.validators import MaxLengthValidator
from django.db import models
from django.db.models.functions import Now
from django.utils import timezone

from retrieval.replica.user_writes import recorded

MAX_CONTENT_CHARS = 32_000  # of a message, and of a passage's text; docs/api.md


class OwnedQuerySet(models.QuerySet[Any]):
    """Rows that belong to a user each."""

    def of(self, user: Any) -> Self:
        """The user's own rows. Every query for a user's request starts here."""
        return self.filter(user=user)


class Conversation(models.Model):
    """Messages between a user and Verse. ``kind``: its name in URLs and in memories."""

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

    def save(self, **options: Any) -> None:
        with recorded(self.user_id):
            super().save(**options)


class Passage(Conversation):
    """A text to talk about; its reference is such as ``John 3:16-21``."""

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
        permissions = [("view_content", "Can see what others have written; each view is logged")]
        constraints = [
            models.UniqueConstraint(fields=["id", "user"], name="standalone_chats_id_user"),
            models.UniqueConstraint(fields=["user", "source"], name="standalone_chats_user_source"),
        ]

    def __str__(self) -> str:
        return self.title or f"Chat {self.pk}"
