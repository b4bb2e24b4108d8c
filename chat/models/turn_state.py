"""What a running or repeated turn needs to know about its conversation."""

from django.conf import settings
from django.db import models
from django.db.models.functions import Now

from chat.models.conversations import Passage, StandaloneChat


class ClientChat(models.Model):
    """Which chat a client of the OpenAI API means by an id of its own: chat/openai_api.

    Made by SQL in 0015_client_chats, so that deleting a chat works on the schemas before, too: a
    foreign key of PostgreSQL's deletes its row.
    """

    id = models.BigAutoField(primary_key=True)
    user_id = models.BigIntegerField()
    client_id = models.TextField()
    chat_id = models.BigIntegerField()

    class Meta:
        db_table = "client_chats"
        managed = False

    def __str__(self) -> str:
        return self.client_id


class OfOneConversation(models.Model):
    """About one conversation of either kind: exactly one of ``passage`` and ``chat`` is set."""

    user = models.ForeignKey(settings.AUTH_USER_MODEL, models.CASCADE, related_name="+")

    class Meta:
        abstract = True


def _one_conversation(table: str) -> models.CheckConstraint:
    of_chat = models.Q(passage__isnull=True, chat__isnull=False)
    of_passage = models.Q(passage__isnull=False, chat__isnull=True)
    return models.CheckConstraint(condition=of_chat | of_passage, name=f"{table}_one_conversation")


class RunningAnswer(OfOneConversation):
    """An answer that is being generated, at most one a conversation.

    Its text grows here and not in the message's table, whose indexes each update would write. A
    process that finds ``alive_at`` too old ends the answer as interrupted.
    """

    passage = models.OneToOneField(Passage, models.CASCADE, null=True, related_name="running")
    chat = models.OneToOneField(StandaloneChat, models.CASCADE, null=True, related_name="running")
    message_id = models.BigIntegerField()
    text = models.TextField(default="", db_default="")  # so far
    started_at = models.DateTimeField(db_default=Now())
    alive_at = models.DateTimeField(db_default=Now())  # the last heartbeat of its process
    stop_asked = models.BooleanField(default=False, db_default=False)

    class Meta:
        db_table = "running_answers"
        constraints = [_one_conversation("running_answers")]


class IdempotencyKey(OfOneConversation):
    """A client's Idempotency-Key: sent again, it finds the message instead of adding another.

    ``digest``: SHA-256 of the request, so that the same key with another request is refused.
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
