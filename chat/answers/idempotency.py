"""Idempotency keys: a request that is repeated with the same key replays or retries its answer.

chat/api/responses.py reads the header. chat/answers/turns.py computes the request's digest, and
starts the answer again if it is retried.
"""

from datetime import timedelta
from typing import Any

from django.utils import timezone

from chat import errors
from chat.models import Conversation, IdempotencyKey, Message, Status

KEY_LIFETIME = timedelta(hours=24)  # docs/promises.md, "Answers and retries"


def find_question(conversation: Conversation, key: str | None, digest: bytes) -> Message | None:
    """The message that was sent with this key within KEY_LIFETIME, None if there is none.

    Raises KeyReused if the key was used for a request with another digest.
    """
    if not key:
        return None
    keys = IdempotencyKey.objects.filter(key=key, **{conversation.kind: conversation})
    known = keys.first()
    if known is None:
        return None
    question: Message | None = conversation.messages.filter(pk=known.message_id).first()
    if question is None or known.created_at < timezone.now() - KEY_LIFETIME:
        known.delete()
        return None
    if bytes(known.digest) != digest:
        raise errors.KeyReused
    return question


def may_replay(answer: Message) -> bool:
    """Whether a repeated request gets this answer: it is complete, or the user stopped it.

    False: it failed, or its process died; it is generated again. Raises InProgress while it is
    being generated.
    """
    if answer.status == Status.STREAMING:
        raise errors.InProgress
    return answer.error is None


def save_key(conversation: Conversation, key: str | None, digest: bytes, question: Message) -> None:
    """Store the key that the message was sent with, if any. One statement."""
    if key:
        fields: dict[str, Any] = {"user_id": conversation.user_id, conversation.kind: conversation}
        IdempotencyKey.objects.create(key=key, digest=digest, message_id=question.pk, **fields)


def delete_expired_keys() -> int:
    """Delete keys older than KEY_LIFETIME; returns how many."""
    return IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEY_LIFETIME).delete()[0]
