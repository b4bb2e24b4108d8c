"""Conversations that a user keeps: RETENTION_DAYS does not delete them."""

from django.db import IntegrityError, transaction
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound

from chat.errors import DatabaseUnavailable
from chat.models import Conversation, KeptConversation
from retrieval.writable_table import WritableTable

OLDER_SCHEMA = "The database is older than this setting; it works after manage.py migrate."

_table = WritableTable(KeptConversation._meta.db_table)


def has_table() -> bool:
    """Whether conversations can be kept: not before chat 0018_retention. One query a minute."""
    return _table.exists()


def is_kept(conversation: Conversation) -> bool:
    """One query."""
    return has_table() and _rows(conversation).exists()


def set_kept(conversation: Conversation, keep: bool) -> None:
    """Keep the conversation, or no longer. One statement or two.

    Raises NotFound if it was deleted meanwhile, DatabaseUnavailable on an older schema.
    """
    if not has_table():
        raise DatabaseUnavailable(OLDER_SCHEMA)
    if not keep:
        _rows(conversation).delete()
        return
    row = KeptConversation(
        user_id=conversation.user_id, **{f"{conversation.kind}_id": conversation.pk}
    )
    try:
        with transaction.atomic():
            KeptConversation.objects.bulk_create([row], ignore_conflicts=True)
    except IntegrityError as error:
        raise NotFound from error


def _rows(conversation: Conversation) -> QuerySet[KeptConversation]:
    return KeptConversation.objects.filter(
        user_id=conversation.user_id, **{f"{conversation.kind}_id": conversation.pk}
    )
