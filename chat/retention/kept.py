"""Conversations that a user keeps: RETENTION_DAYS does not delete them."""

from contextlib import suppress

from django.db import IntegrityError
from django.db.models import QuerySet
from rest_framework.exceptions import NotFound

from chat.errors import DatabaseUnavailable
from chat.models import Conversation, KeptConversation
from retrieval.later_table import LaterTable, MissingTableError

OLDER_SCHEMA = "The database is older than this setting; it works after manage.py migrate."

_table = LaterTable(KeptConversation._meta.db_table)


def has_table() -> bool:
    """Whether conversations can be kept: not before chat 0018_retention. One query a minute."""
    return _table.may_write()


def is_kept(conversation: Conversation) -> bool:
    """Whether the user keeps the conversation. One query."""
    with suppress(MissingTableError), _table.required():
        return _rows(conversation).exists()
    return False


def set_kept(conversation: Conversation, keep: bool) -> None:
    """Keep the conversation, or no longer. One statement or two.

    Raises NotFound if it was deleted meanwhile, DatabaseUnavailable on an older schema.
    """
    try:
        with _table.required():
            _set_kept(conversation, keep)
    except MissingTableError as error:
        raise DatabaseUnavailable(OLDER_SCHEMA) from error
    except IntegrityError as error:
        raise NotFound from error


def _set_kept(conversation: Conversation, keep: bool) -> None:
    if not keep:
        _rows(conversation).delete()
        return
    ids = {"user_id": conversation.user_id, f"{conversation.kind}_id": conversation.pk}
    KeptConversation.objects.bulk_create([KeptConversation(**ids)], ignore_conflicts=True)


def _rows(conversation: Conversation) -> QuerySet[KeptConversation]:
    return KeptConversation.objects.filter(
        user_id=conversation.user_id, **{f"{conversation.kind}_id": conversation.pk}
    )
