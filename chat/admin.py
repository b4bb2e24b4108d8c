"""What an operator sees under /admin/, apart from conversations and messages.

These are in chat/content_admin.py and chat/message_admin.py.

No page shows a running answer or a token's digest.
"""

from typing import TYPE_CHECKING, Any, cast

from django.apps import apps
from django.contrib import admin
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.db.models.functions import Length
from django.forms import ModelForm
from django.http import HttpRequest

from chat import content_admin, message_admin  # noqa: F401 # register their pages
from chat.auth.api_tokens import revoke_token
from chat.auth.login_forms import AdminLoginForm
from chat.auth.usernames import normalize
from chat.bounded_admin import BoundedAdmin, BoundedPaginator, CascadingAdmin, with_id
from chat.models import (
    ApiToken,
    ChatMessage,
    IdempotencyKey,
    MemorySwitch,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)

if TYPE_CHECKING:  # Django's own classes take no type at run time
    DjangoUserAdmin = UserAdmin[User]
    Form = ModelForm[Any]
else:
    DjangoUserAdmin, Form = UserAdmin, ModelForm

# Only the admin shows these names; in the models they would be a migration.
ApiToken._meta.verbose_name, ApiToken._meta.verbose_name_plural = "API token", "API tokens"
MemorySwitch._meta.verbose_name_plural = "memory switches"

admin.site.site_header = admin.site.site_title = "Verse"
admin.site.login_form = AdminLoginForm
admin.site.enable_nav_sidebar = False  # lists of messages have eight columns


class VerseUserAdmin(CascadingAdmin, DjangoUserAdmin):
    """Django's own, with a list and a search of bounded cost."""

    paginator = BoundedPaginator
    show_full_result_count = False
    search_fields = ("username",)
    search_help_text = "An id, or the beginning of a username"
    list_filter = ()
    sortable_by = ("username",)
    cascade = (Passage, StandaloneChat, ChatMessage, StandaloneChatMessage, ApiToken)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        if search_term:
            has_name = Q(username__startswith=normalize(search_term))
            queryset = queryset.filter(with_id(search_term) | has_name)
        return queryset, False


@admin.register(ApiToken)
class ApiTokenAdmin(BoundedAdmin):
    """A token is revoked by deleting it. Created by its user or by create_token only."""

    allowed = ("delete",)
    list_display = ("id", "name", "user", "created_at", "last_used_at")
    fields = ("user", "name", "created_at", "last_used_at")

    def delete_model(self, request: HttpRequest, obj: ApiToken) -> None:
        revoke_token(obj, by=cast("User", request.user))


@admin.register(RunningAnswer)
class RunningAnswerAdmin(BoundedAdmin):
    """Answers that are generated now, and the last heartbeat of their process."""

    list_display = (
        *("id", "user", "passage_id", "chat_id", "message_id"),
        *("started_at", "alive_at", "stop_asked", "chars"),
    )
    fields = list_display

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        rows: Any = super().get_queryset(request).annotate(chars=Length("text"))
        return cast("QuerySet[Any]", rows.defer("text"))

    @admin.display(description="characters so far")
    def chars(self, running: Any) -> int:
        return int(running.chars)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(BoundedAdmin):
    """Idempotency keys of the last 24 hours, without their digests."""

    list_display = ("id", "user", "passage_id", "chat_id", "key", "message_id", "created_at")
    fields = list_display


@admin.register(MemorySwitch)
class MemorySwitchAdmin(BoundedAdmin):
    """Read only: users turn their memory on and off themselves."""

    list_display = ("user", "enabled", "changed_at")
    fields = list_display
    sortable_by = ()


class AuditLineAdmin(BoundedAdmin):
    """Read only, and for superusers: no role can change a line."""

    list_display = ("at", "who", "what", "whose")
    fields = list_display
    search_fields = ("pk",)
    search_help_text = "An id"
    list_select_related = ()
    raw_id_fields = ()

    def has_view_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        user: Any = request.user
        return bool(user.is_superuser)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Any], search_term: str
    ) -> tuple[QuerySet[Any], bool]:
        return (queryset.filter(with_id(search_term)) if search_term else queryset), False


admin.site.register(apps.get_model("retrieval", "AuditLine"), AuditLineAdmin)
admin.site.unregister(User)
admin.site.register(User, VerseUserAdmin)
