"""What users can do with their memory: search, switch, export, erase."""

from collections.abc import AsyncIterator
from datetime import datetime
from typing import Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import transaction
from django.utils import timezone

from chat import personal_data
from chat.conflicts import repeat_after_conflict
from chat.memory import recall
from chat.memory.recall import SearchResult
from chat.memory.state import memory_state
from chat.models import KINDS, MemorySwitch, Role
from retrieval import audit
from retrieval.recall.candidates import Scope
from retrieval.replica.user_writes import recorded


class MemoryService:
    """One user's memory and personal data."""

    def __init__(self, user: User) -> None:
        self.user = user

    def search(
        self,
        text: str,
        *,
        limit: int | None = None,
        role: str | None = None,
        kind: str | None = None,
        since: datetime | None = None,
        until: datetime | None = None,
    ) -> SearchResult:
        """The recall that answers use, with nothing excluded. At most one embedding call.

        ``limit`` is RAG_CONTEXT_LIMIT, but at least 1, unless given. The other arguments filter.
        """
        scope = Scope(
            self.user.pk,
            by_user=None if role is None else role == Role.USER,
            kind_bit=None if kind is None else KINDS[kind].memory_table.kind_bit,
            since=since,
            until=until,
        )
        return recall.search(text, scope, limit=limit or max(settings.RAG_CONTEXT_LIMIT, 1))

    def state(self) -> dict[str, Any]:
        """The user's switch, the numbers of messages, and recall's mode: docs/api/memory.md."""
        return memory_state(self.user.pk)

    @repeat_after_conflict
    def configure(self, *, enabled: bool | None = None) -> dict[str, Any]:
        """Turn memory on or off (None: leave it); the state. Off: no recall and no embedding."""
        if enabled is not None:
            with transaction.atomic(), recorded(self.user.pk):
                audit.record(self.user, f"memory {'on' if enabled else 'off'}", whose=self.user)
                MemorySwitch.objects.update_or_create(
                    user=self.user, defaults={"enabled": enabled, "changed_at": timezone.now()}
                )
        return self.state()

    @repeat_after_conflict
    def erase(self) -> dict[str, Any]:
        """Delete the user's conversations and everything that belongs to them; the receipt."""
        with transaction.atomic():
            audit.record(self.user, "erase", whose=self.user)
            return personal_data.erase(self.user.pk)

    def export(self) -> AsyncIterator[bytes]:
        """Everything stored about the user, as JSON Lines."""
        audit.record(self.user, "export", whose=self.user)
        return personal_data.export(self.user)
