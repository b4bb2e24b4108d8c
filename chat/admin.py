"""What an operator sees under /admin/: who wrote when, never what.

No page shows the content of a message, the text of a passage, a running answer or a token's
digest. Titles and references are shown: conversations are found by them. The admin deletes
through the same service as the API, and changes nothing for which the API has rules.
"""

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.db.models import Q, QuerySet
from django.db.models.functions import Length
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone

from chat.auth.usernames import normalize
from chat.bounded_admin import BoundedAdmin, BoundedPaginator, CascadingAdmin, with_id
from chat.errors import InProgress
from chat.models import (
    ApiToken,
    ChatMessage,
    IdempotencyKey,
    MemorySwitch,
    Message,
    Passage,
    RunningAnswer,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.services import ChatService

if TYPE_CHECKING:  # Django's own classes take no type at run time
    DjangoUserAdmin = UserAdmin[User]
    Form = ModelForm[Any]
else:
    DjangoUserAdmin, Form = UserAdmin, ModelForm

# Only the admin shows these names; in the models they would be a migration.
ApiToken._meta.verbose_name, ApiToken._meta.verbose_name_plural = "API token", "API tokens"
MemorySwitch._meta.verbose_name_plural = "memory switches"

admin.site.site_header = admin.site.site_title = "Verse"


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


class ConversationAdmin(CascadingAdmin, BoundedAdmin):
    """A conversation keeps its user. The admin's log stores no title: it would outlive its chat."""

    allowed = ("add", "change", "delete")
    readonly_fields: ClassVar[Any] = ("source", "created_at", "updated_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # The user of an existing conversation is the user of its messages.
        return self.readonly_fields if obj is None else ("user", *self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Form, change: bool) -> None:
        """Saves only changed fields. Raises DatabaseError if the row was deleted meanwhile."""
        obj.updated_at = timezone.now()
        obj.save(update_fields=[*form.changed_data, "updated_at"] if change else None)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        ChatService(obj).delete_conversation()

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return super().log_addition(request, without_title(obj), message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        return super().log_change(request, without_title(obj), message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        untitled: Any = [without_title(conversation) for conversation in queryset]
        return super().log_deletions(request, untitled)


def without_title(conversation: Any) -> Any:
    """A copy for the admin's log, with its id instead of its title."""
    if isinstance(conversation, Passage):
        return Passage(pk=conversation.pk, reference=f"Passage {conversation.pk}")
    return StandaloneChat(pk=conversation.pk)


@admin.register(Passage)
class PassageAdmin(ConversationAdmin):
    """The text of a passage can be entered when it is created; later no page loads it."""

    list_display = ("id", "reference", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "reference")
    fields = ("user", "reference", "text", "memory", "source", "created_at", "updated_at")
    cascade = (ChatMessage,)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj is None else [name for name in self.fields if name != "text"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text")


@admin.register(StandaloneChat)
class StandaloneChatAdmin(ConversationAdmin):
    list_display = ("id", "title", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "title")
    fields = ("user", "title", "memory", "source", "created_at", "updated_at")
    cascade = (StandaloneChatMessage,)


@admin.register(ChatMessage, StandaloneChatMessage)
class MessageAdmin(BoundedAdmin):
    """Messages can be deleted, by the API's rules. Their content is not shown."""

    allowed = ("delete",)
    list_display = ("id", "user", "conversation_id", "role", "status", "created_at")
    fields = (
        *("id", "user", "conversation", "role", "status", "error", "chars"),
        *("created_at", "edited_at", "reply_to", "truncated", "context"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # An answer may be a megabyte long, and a list has a hundred.
        return super().get_queryset(request).defer("content", "context")

    @admin.display(description="characters")
    def chars(self, message: Any) -> int:
        return len(message.content)

    def delete_model(self, request: HttpRequest, obj: Message) -> None:
        ChatService(obj.conversation).delete(obj)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """While an answer is running: shows why it cannot be deleted, and logs nothing."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except InProgress as error:
            messages.error(request, str(error.detail))
            return HttpResponseRedirect(
                reverse(f"admin:chat_{self.opts.model_name}_change", args=[object_id])
            )


@admin.register(ApiToken)
class ApiTokenAdmin(BoundedAdmin):
    """A token is revoked by deleting it. Created by its user or by create_token only."""

    allowed = ("delete",)
    list_display = ("id", "name", "user", "created_at", "last_used_at")
    fields = ("user", "name", "created_at", "last_used_at")


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


admin.site.unregister(User)
admin.site.register(User, VerseUserAdmin)
