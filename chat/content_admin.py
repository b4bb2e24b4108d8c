"""The admin of conversations, and what it shares with that of messages (chat/message_admin.py).

Contents, titles, references and passages' texts need the permission ``chat.view_content``, and each
view of them is a line in the audit log. The admin deletes through the same service as the API, and
changes nothing for which the API has rules.
"""

from typing import TYPE_CHECKING, Any, ClassVar, cast

from django.contrib import admin
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.forms import ModelForm
from django.http import HttpRequest, HttpResponse
from django.utils import timezone

from chat import inspection
from chat.bounded_admin import BoundedAdmin, CascadingAdmin
from chat.models import ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from chat.services import ChatService

if TYPE_CHECKING:  # Django's own class takes no type at run time
    Form = ModelForm[Any]
else:
    Form = ModelForm


class ContentsAdmin(BoundedAdmin):
    """Pages with contents: shown with the permission only, and each view is logged."""

    contents: ClassVar[tuple[str, ...]]  # columns and fields that hold what the user has written

    def get_list_display(self, request: HttpRequest) -> Any:
        return self._without_contents(request, self.list_display)

    def get_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        return self.fields if obj is None else self._without_contents(request, self.fields)

    def _without_contents(self, request: HttpRequest, names: Any) -> list[str]:
        if inspection.may_see_contents(request):
            return list(names)
        return [name for name in names if name not in self.contents]

    def changelist_view(self, request: HttpRequest, extra_context: Any = None) -> HttpResponse:
        response = super().changelist_view(request, extra_context)
        inspection.record_list(request, str(self.opts.verbose_name_plural))
        return response

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """The row of a page that shows, changes or deletes it; None if there is no such row."""
        obj = super().get_object(request, object_id, from_field)
        if obj is not None and self.has_view_permission(request, obj):
            inspection.record_page(request, f"{self.opts.verbose_name} {obj.pk}", whose=obj.user)
        return obj


class ConversationAdmin(CascadingAdmin, ContentsAdmin):
    """A conversation keeps its user. The admin's log stores no title: it would outlive its chat."""

    allowed = ("add", "change", "delete")
    readonly_fields: ClassVar[Any] = ("source", "created_at", "updated_at")
    change_form_template = "admin/conversation_change_form.html"

    def render_change_form(
        self, request: HttpRequest, context: dict[str, Any], *args: Any, **kwargs: Any
    ) -> HttpResponse:
        """With the conversation's messages as a conversation; ``?before=ID``: earlier ones."""
        conversation = context.get("original")
        if conversation is not None:
            context |= self._messages(request, conversation)
        return super().render_change_form(request, context, *args, **kwargs)

    def _messages(self, request: HttpRequest, conversation: Any) -> dict[str, Any]:
        """The template's ``conversation_messages`` for who may view messages."""
        model = conversation.messages.model._meta
        user: Any = request.user
        if not user.has_perm(f"chat.view_{model.model_name}"):
            return {}
        before = request.GET.get("before", "")
        shown, earlier = inspection.messages_of(
            conversation,
            before=int(before) if before.isdecimal() and len(before) < 19 else None,
            with_text=inspection.may_see_contents(request),
        )
        return {"conversation_messages": shown, "earlier": earlier, "message_opts": model}

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        """Without its title for who may not see contents; it is never saved as a whole."""
        obj = super().get_object(request, object_id, from_field)
        if obj is not None and not inspection.may_see_contents(request):
            hide_title(obj)
        return obj

    def get_readonly_fields(self, request: HttpRequest, obj: Any = None) -> Any:
        # The user of an existing conversation is the user of its messages; a passage's text is
        # what they talk about.
        return self.readonly_fields if obj is None else ("user", "text", *self.readonly_fields)

    def save_model(self, request: HttpRequest, obj: Any, form: Form, change: bool) -> None:
        """Saves only changed fields. Raises DatabaseError if the row was deleted meanwhile."""
        if "memory" in form.changed_data and change:
            ChatService(obj).record_switch(obj.memory, by=cast("User", request.user))
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
    return hide_title(type(conversation)(pk=conversation.pk))


def hide_title(conversation: Any) -> Any:
    """Put the id in the place of the title; the conversation itself."""
    if isinstance(conversation, Passage):
        conversation.reference = f"Passage {conversation.pk}"
    else:
        conversation.title = ""
    return conversation


@admin.register(Passage)
class PassageAdmin(ConversationAdmin):
    list_display = ("id", "reference", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "reference")
    fields = ("user", "reference", "text", "memory", "source", "created_at", "updated_at")
    contents = ("reference", "text", "source")
    cascade = (ChatMessage,)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        return super().get_queryset(request).defer("text")


@admin.register(StandaloneChat)
class StandaloneChatAdmin(ConversationAdmin):
    list_display = ("id", "title", "user", "memory", "created_at", "updated_at")
    list_display_links = ("id", "title")
    fields = ("user", "title", "memory", "source", "created_at", "updated_at")
    contents = ("title", "source")
    cascade = (StandaloneChatMessage,)
