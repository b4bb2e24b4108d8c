"""What an operator sees of memory under /admin/: what embedding costs."""

from typing import Any

from django.contrib import admin
from django.http import HttpRequest

from chat.bounded_admin import BoundedAdmin
from retrieval.embeddings import usage
from retrieval.models import UserEmbeddingUsage


@admin.register(UserEmbeddingUsage)
class UserEmbeddingUsageAdmin(BoundedAdmin):
    """Read only: what embedding has cost, by day, model and user. Hidden until migrate has run."""

    list_display = ("day", "model", "user", "texts", "tokens", "cost_usd")
    list_display_links = None
    fields = list_display

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return super().has_view_permission(request, obj) and usage.has_table()

    def has_module_permission(self, request: HttpRequest) -> bool:
        return super().has_module_permission(request) and usage.has_table()
