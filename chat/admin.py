"""What an operator sees under /admin/: bounded pages of millions of rows; who said something when, and never what.

No page shows the content of a message, the text of a passage, an answer so far, or a digest of a token. Titles and
references are shown: they are the names by which a conversation is found.

Editing and forgetting have rules (embedding, running answers, recall) that live in the API and its service; the
admin deletes through the same service and changes nothing that has such rules.

Nothing searches, filters or sorts by content or time: ``content ILIKE '%…%'``, ``date_hierarchy`` and a filter by
status have no index, so each would read a whole message table. A row is found by its id or by its user.
"""

from typing import TYPE_CHECKING, Any, ClassVar, TypeVar, cast

from django.contrib import admin, messages
from django.contrib.auth.admin import UserAdmin
from django.contrib.auth.models import User
from django.core.paginator import Paginator
from django.db.models import Model, Q, QuerySet
from django.db.models.functions import Length
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.functional import cached_property

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

if TYPE_CHECKING:  # Django's own class takes no type at run time
    ModelAdmin = admin.ModelAdmin[Any]
    Users = UserAdmin[User]
    Pages = Paginator[Any]
    Form = ModelForm[Any]
else:
    ModelAdmin, Users, Pages, Form = admin.ModelAdmin, UserAdmin, Paginator, ModelForm

T = TypeVar("T", bound=Model)
MOST_COUNTED = (
    10_000  # rows: a hundred pages of a hundred; counted in milliseconds, whatever the table's size
)
MOST_USERS = 100  # of those whose names begin as asked: their ids stand in the query

# Words that only the admin shows: in the models they would be migrations, and 0001 is final.
for _model, _name, _names in (
    (ApiToken, "API token", "API tokens"),
    (MemorySwitch, "memory switch", "memory switches"),
):
    _model._meta.verbose_name, _model._meta.verbose_name_plural = _name, _names

admin.site.site_header = admin.site.site_title = "Verse"
admin.site.site_url = "/api/docs/"


class BoundedPaginator(Pages):
    """Counts up to MOST_COUNTED rows and no further; older rows are found by a search."""

    @cached_property
    def count(self) -> int:
        """Rows, MOST_COUNTED at the most. One query."""
        rows: Any = self.object_list
        return int(rows.order_by()[:MOST_COUNTED].count())


def users_like(term: str) -> list[int]:
    """Ids of MOST_USERS users whose names begin with ``term``. One query, on the names' own index."""
    users = User.objects.filter(username__startswith=term).order_by("username")
    return list(users.values_list("pk", flat=True)[:MOST_USERS])


def with_id(term: str) -> Q:
    """The row whose id this is; none where it is no number."""
    return Q(pk=int(term)) if term.isdecimal() else Q(pk__in=[])


class BoundedAdmin(ModelAdmin):
    """A list that costs the same with a thousand rows and with a hundred million."""

    paginator = BoundedPaginator
    show_full_result_count = False
    ordering: ClassVar[Any] = ("-pk",)
    sortable_by: ClassVar[Any] = ("id",)
    search_fields: ClassVar[Any] = ("pk", "user__username")
    search_help_text = "An id, or how a user's name begins"
    list_select_related: ClassVar[Any] = ("user",)
    raw_id_fields: ClassVar[Any] = ("user",)
    actions = None  # rows are deleted one by one, under the rules of the service
    allowed: ClassVar[
        tuple[str, ...]
    ] = ()  # of add, change and delete, to whoever has Django's permission

    def has_add_permission(self, request: HttpRequest) -> bool:
        """Where ``allowed`` says so."""
        return "add" in self.allowed and super().has_add_permission(request)

    def has_change_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Where ``allowed`` says so."""
        return "change" in self.allowed and super().has_change_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        """Where ``allowed`` says so."""
        return "delete" in self.allowed and super().has_delete_permission(request, obj)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[T], search_term: str
    ) -> tuple[QuerySet[T], bool]:
        """The row of that id and the rows of those users; both by an index."""
        if search_term:
            queryset = queryset.filter(
                with_id(search_term) | Q(user_id__in=users_like(search_term))
            )
        return queryset, False


class DeletedWhole:
    """Deletes a row with all that belongs to it, without listing each of a million messages first."""

    cascade: ClassVar[tuple[type[Model], ...]]

    def get_deleted_objects(self, objs: Any, request: HttpRequest) -> Any:
        """The rows themselves; what goes with them by its name, refused to whoever may not delete that."""
        user: Any = request.user
        names = {model: str(model._meta.verbose_name_plural) for model in self.cascade}
        refused = {
            name
            for model, name in names.items()
            if not user.has_perm(f"chat.delete_{model._meta.model_name}")
        }
        return [str(one) for one in objs], dict.fromkeys(names.values(), "all of them"), refused, []


class VerseUserAdmin(DeletedWhole, Users):
    """Django's own, with a list and a search that stay quick."""

    paginator = BoundedPaginator
    show_full_result_count = False
    search_fields = ("username",)
    search_help_text = "An id, or how a name begins"
    list_filter = ()
    sortable_by = ("username",)
    cascade = (Passage, StandaloneChat, ChatMessage, StandaloneChatMessage, ApiToken)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[T], search_term: str
    ) -> tuple[QuerySet[T], bool]:
        """The user of that id, and those whose names begin so."""
        if search_term:
            queryset = queryset.filter(with_id(search_term) | Q(username__startswith=search_term))
        return queryset, False


class ConversationAdmin(DeletedWhole, BoundedAdmin):
    """A conversation. Whose it is stays as it was made; the admin's own history does not repeat its title."""

    allowed = ("add", "change", "delete")
    readonly_fields: ClassVar[Any] = ("source", "created_at", "updated_at")

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The user too, once it is there: its messages belong to the same one."""
        return self.readonly_fields if obj is None else ("user", *self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Form, change: bool) -> None:
        """Only what was changed, so that one deleted meanwhile does not come back. DatabaseError: it was."""
        obj.updated_at = timezone.now()
        obj.save(update_fields=[*form.changed_data, "updated_at"] if change else None)

    def delete_model(self, request: HttpRequest, obj: Any) -> None:
        """As through the API."""
        ChatService(obj).delete_conversation()

    def log_addition(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Without its title, which would outlive the conversation here."""
        return super().log_addition(request, unnamed(obj), message)

    def log_change(self, request: HttpRequest, obj: Any, message: Any) -> Any:
        """Without its title."""
        return super().log_change(request, unnamed(obj), message)

    def log_deletions(self, request: HttpRequest, queryset: Any) -> Any:
        """Without their titles."""
        nameless: Any = [unnamed(one) for one in queryset]
        return super().log_deletions(request, nameless)


def unnamed(conversation: Any) -> Any:
    """The conversation with its number for a name."""
    if isinstance(conversation, Passage):
        return Passage(pk=conversation.pk, reference=f"Passage {conversation.pk}")
    return StandaloneChat(pk=conversation.pk)


@admin.register(Passage)
class PassageAdmin(ConversationAdmin):
    """Passages. Their text is written once, when one is made here; after that no page loads it."""

    list_display = ("id", "reference", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "reference")
    fields = ("user", "reference", "text", "memory", "source", "created_at", "updated_at")
    cascade = (ChatMessage,)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        """The text only of one that is not there yet."""
        return self.fields if obj is None else [name for name in self.fields if name != "text"]

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the text."""
        return super().get_queryset(request).defer("text")


@admin.register(StandaloneChat)
class StandaloneChatAdmin(ConversationAdmin):
    """Standalone chats."""

    list_display = ("id", "title", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "title")
    fields = ("user", "title", "memory", "source", "created_at", "updated_at")
    cascade = (StandaloneChatMessage,)


@admin.register(ChatMessage, StandaloneChatMessage)
class MessageAdmin(BoundedAdmin):
    """Messages: who said one when, to be deleted as through the API. What it says is for its author only, there."""

    allowed = ("delete",)
    list_display = ("id", "user", "conversation_id", "role", "status", "created_at")
    fields = (
        *("id", "user", "conversation", "role", "status", "error", "chars"),
        *("created_at", "edited_at", "reply_to", "truncated", "context"),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """Without the long ones: an answer may be a megabyte, and a list has a hundred."""
        return super().get_queryset(request).defer("content", "context")

    @admin.display(description="characters")
    def chars(self, message: Any) -> int:
        """Of its content, which this page loads and does not show."""
        return len(message.content)

    def delete_model(self, request: HttpRequest, obj: Message) -> None:
        """As through the API. Raises InProgress while it is being given or answered."""
        ChatService(obj.conversation).delete(obj)

    def delete_view(
        self, request: HttpRequest, object_id: str, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        """Says why where an answer is being given; nothing is deleted then, and nothing put into the history."""
        try:
            return super().delete_view(request, object_id, extra_context)
        except InProgress as error:
            messages.error(request, str(error.detail))
            return HttpResponseRedirect(
                reverse(f"admin:chat_{self.opts.model_name}_change", args=[object_id])
            )


@admin.register(ApiToken)
class ApiTokenAdmin(BoundedAdmin):
    """Tokens: revoked by deleting them; made by their user or by create_token, for a key is shown only once."""

    allowed = ("delete",)
    list_display = ("id", "name", "user", "created_at", "last_used_at")
    fields = ("user", "name", "created_at", "last_used_at")


@admin.register(RunningAnswer)
class RunningAnswerAdmin(BoundedAdmin):
    """Answers being given now: since when, and whether their process still shows life."""

    list_display = (
        *("id", "user", "passage_id", "chat_id", "message_id"),
        *("started_at", "alive_at", "stop_asked", "chars"),
    )
    fields = list_display

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        """The text's length in its place."""
        rows: Any = super().get_queryset(request).annotate(chars=Length("text"))
        return cast("QuerySet[Any]", rows.defer("text"))

    @admin.display(description="characters so far")
    def chars(self, running: Any) -> int:
        """Of the text that a process would leave if it died now."""
        return int(running.chars)


@admin.register(IdempotencyKey)
class IdempotencyKeyAdmin(BoundedAdmin):
    """Keys that clients sent, for 24 hours; without the digest of what they were sent with."""

    list_display = ("id", "user", "passage_id", "chat_id", "key", "message_id", "created_at")
    fields = list_display


@admin.register(MemorySwitch)
class MemorySwitchAdmin(BoundedAdmin):
    """Who has turned memory off; it is the user's own switch, so nobody else turns it."""

    list_display = ("user", "enabled", "changed_at")
    fields = list_display
    sortable_by = ()


admin.site.unregister(User)
admin.site.register(User, VerseUserAdmin)
