"""Texts that a user keeps without an answer, in a chat of their own."""

from django.contrib.auth.models import User
from django.db import transaction

from chat.answers import turns
from chat.memory import embed
from chat.models import Message, Role, StandaloneChat
from chat.rate_limit import count_message
from retrieval import connection_share
from retrieval.replica.user_writes import recorded

TITLE = "Remembered"  # its name in an export too


def remember(user: User, content: str) -> Message:
    """The message with this text in the user's chat "Remembered"; a new one is embedded.

    Raises Throttled: it counts as a posted message. Locks the user's row, as a turn does.
    """
    with connection_share.hold(user.pk), transaction.atomic(), recorded(user.pk):
        now = turns.lock_user(user.pk)
        chat = _chat_of(user)
        known: Message | None = chat.messages.filter(role=Role.USER, content=content).first()
        if known:
            return known
        count_message(user.pk)
        message: Message = chat.messages.create(
            user=user, role=Role.USER, content=content, created_at=now
        )
        StandaloneChat.objects.filter(pk=chat.pk).update(updated_at=now)
    embed.embed_in_background(message)
    return message


def _chat_of(user: User) -> StandaloneChat:
    """By its source, so that the user may rename it. The user's row must be locked."""
    chat: StandaloneChat | None = StandaloneChat.objects.of(user).filter(source=TITLE).first()
    return chat or StandaloneChat.objects.create(user=user, source=TITLE, title=TITLE)
