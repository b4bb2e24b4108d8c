"""Which message came with a client's Idempotency-Key: the same key again finds it instead of adding one."""

from datetime import timedelta

from django.utils import timezone

from chat import errors
from chat.models import IdempotencyKey, Message, Passage, StandaloneChat

KEY_LIFETIME = timedelta(hours=24)  # contract of Idempotency-Key


def find_question(
    conversation: Passage | StandaloneChat, key: str | None, digest: bytes
) -> Message | None:
    """The message that came with this key within KEY_LIFETIME. Raises KeyReused where it was another."""
    named = {conversation.kind: conversation}
    known = IdempotencyKey.objects.filter(key=key, **named).first() if key else None
    if known is None:
        return None
    question: Message | None = conversation.messages.filter(pk=known.message_id).first()
    if question is None or known.created_at < timezone.now() - KEY_LIFETIME:
        known.delete()
        return None
    if bytes(known.digest) != digest:
        raise errors.KeyReused
    return question


def save_key(
    conversation: Passage | StandaloneChat, key: str | None, digest: bytes, question: Message
) -> None:
    """Keep with the message the key that it came with, if any. One statement."""
    if key:
        fields = {
            "user_id": conversation.user_id,
            "key": key,
            "digest": digest,
            "message_id": question.pk,
        }
        IdempotencyKey.objects.create(**fields, **{conversation.kind: conversation})


def delete_expired_keys() -> int:
    """Delete the keys that have served their time; how many."""
    return IdempotencyKey.objects.filter(created_at__lt=timezone.now() - KEY_LIFETIME).delete()[0]
