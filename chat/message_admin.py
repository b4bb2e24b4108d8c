"""The admin of messages: the state of their embeddings, their text, and what answers were given.

Lists are bounded: chat/message_lists. Messages can be deleted and embedded; the API alone adds and
changes them.
"""

from typing import Any, ClassVar, cast

from django.contrib import admin, messages
from django.contrib.auth.models import User
from django.db.models import QuerySet
from django.http import HttpRequest, HttpResponse, HttpResponseRedirect
from django.urls import reverse
from django.utils import timezone
from django.utils.dateformat import format as date_format
from django.utils.html import format_html, format_html_join

from chat import inspection
from chat.content_admin import ContentsAdmin
from chat.embedding_requests import CannotEmbed, request_embedding
from chat.errors import InProgress
from chat.message_lists.changelist import MessageChangeList
from chat.message_lists.filters import (
    ModelFilter,
    RoleFilter,
    StateFilter,
    StatusFilter,
    TimeFilter,
)
from chat.models import ChatMessage, Message, StandaloneChatMessage
from chat.prices import price_of
from chat.services import ChatService

NONE = "-"  # as Django shows an empty field


@admin.register(ChatMessage, StandaloneChatMessage)
class MessageAdmin(ContentsAdmin):
    """Messages and the state of their embeddings."""

    allowed = ("delete",)
    actions = ("embed_now", "retry_failed")
    contents = ("excerpt", "conversation", "content", "memories_used")
    list_display = (*("id", "excerpt", "user", "role", "status", "state", "model_name", "created"),)
    list_filter = (StateFilter, StatusFilter, RoleFilter, ModelFilter, TimeFilter)
    filter_parameters = ("role", "status", "state", "model", *TimeFilter.parameters)
    sortable_by = ()
    list_per_page = 50  # a row takes 0.4 ms to render
    sections: ClassVar[dict[str, tuple[str, ...]]] = {
        "": (
            "user",
            "conversation_link",
            "conversation",
            "role",
            "status",
            "error",
            "created_at",
            "edited_at",
        ),
        "Text": ("content", "chars", "truncated", "answered", "memories_used"),
        "Tokens": ("tokens", "cost"),
        "Embedding": ("state", "model_name", "dimensions", "norm", "refusal"),
    }

    def get_fieldsets(self, request: HttpRequest, obj: Any = None) -> Any:
        seen = inspection.may_see_contents(request)
        hidden = ("conversation_link",) if seen else self.contents
        return [
            (title or None, {"fields": [name for name in names if name not in hidden]})
            for title, names in self.sections.items()
        ]

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[MessageChangeList]:
        return MessageChangeList

    def get_queryset(self, request: HttpRequest) -> QuerySet[Any]:
        # An answer may be a megabyte long, and a list has a hundred.
        rows = super().get_queryset(request).defer("content", "context")
        return cast("QuerySet[Any]", inspection.with_excerpts(rows))

    def get_object(
        self, request: HttpRequest, object_id: str, from_field: str | None = None
    ) -> Any:
        message = super().get_object(request, object_id, from_field)
        if message is not None:
            inspection.add_embedding(message)
        return message

    @admin.display(description="begins with")
    def excerpt(self, message: Any) -> str:
        return " ".join(message.excerpt.split())

    @admin.display(description="created")
    def created(self, message: Any) -> str:
        return date_format(timezone.localtime(message.created_at), "j M Y H:i")

    @admin.display(description="embedding")
    def state(self, message: Any) -> str:
        return str(message.state)

    @admin.display(description="model")
    def model_name(self, message: Any) -> str:
        return message.model_name or NONE

    @admin.display(description="characters")
    def chars(self, message: Any) -> int:
        return len(message.content)

    @admin.display(description="dimensions")
    def dimensions(self, message: Any) -> str:
        return str(message.embedding_details.dimensions or NONE)

    @admin.display(description="norm of the vector")
    def norm(self, message: Any) -> str:
        norm = message.embedding_details.norm
        return NONE if norm is None else f"{norm:.4f}"

    @admin.display(description="why it failed")
    def refusal(self, message: Any) -> str:
        return message.embedding_details.refusal or NONE

    @admin.display(description="used")
    def tokens(self, message: Any) -> str:
        usage = message.usage
        if usage is None:
            return NONE
        prompt = (
            f"{usage['prompt_tokens']:,} of the prompt, {usage['cached_tokens']:,} of them cached"
        )
        return f"{prompt}; {usage['completion_tokens']:,} of the answer"

    @admin.display(description="cost")
    def cost(self, message: Any) -> str:
        """By today's price of the model that wrote it."""
        model = message.model
        price = price_of(model) if model else None
        if price is None:
            return f"no price of {model} is known" if model else NONE
        return f"${price.cost_usd(message.usage):.6f} by {model}"

    @admin.display(description="conversation")
    def conversation_link(self, message: Any) -> str:
        """A link to its page, without its title."""
        kind = message._meta.get_field("conversation").related_model._meta
        return link_to(kind.model_name, message.conversation_id, kind.verbose_name)

    @admin.display(description="answers")
    def answered(self, message: Any) -> str:
        """A link to the message that it answers."""
        if message.reply_to is None:
            return NONE
        return link_to(self.opts.model_name, message.reply_to, "message")

    @admin.display(description="memories used")
    def memories_used(self, message: Any) -> str:
        """Links to the messages that the answer was given."""
        items = format_html_join(
            "",
            "<li>{}: {}</li>",
            (
                (
                    link_to(used._meta.model_name, used.pk, f"{used.role}, message"),
                    used.content[:80],
                )
                for used in inspection.context_of(message)
            ),
        )
        return format_html('<ul class="memories">{}</ul>', items) if items else NONE

    def has_embed_permission(self, request: HttpRequest) -> bool:
        """Who may change messages: it costs money, and changes no text."""
        user: Any = request.user
        return bool(user.has_perm(f"chat.change_{self.opts.model_name}"))

    def get_actions(self, request: HttpRequest) -> Any:
        actions = super().get_actions(request)
        actions.pop("delete_selected", None)  # only one by one, by the rules of the service
        return actions

    @admin.action(description="Embed now", permissions=["embed"])
    def embed_now(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._request_embedding(request, queryset, retry=False)

    @admin.action(description="Retry failed", permissions=["embed"])
    def retry_failed(self, request: HttpRequest, queryset: QuerySet[Any]) -> None:
        self._request_embedding(request, queryset, retry=True)

    def _request_embedding(
        self, request: HttpRequest, queryset: QuerySet[Any], *, retry: bool
    ) -> None:
        ids = list(queryset.values_list("pk", flat=True))  # at most MAX_LOOKED_AT
        try:
            request_embedding(self.model, ids, retry=retry, by=cast("User", request.user))
        except CannotEmbed as error:
            messages.error(request, f"Nothing was embedded: {error}.")
            return
        which = "pending or failed" if retry else "pending"
        messages.success(
            request,
            f"In the background, those of the {len(ids):,} selected messages that are {which} are"
            " embedded now. Load this page again to see their states.",
        )

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


def link_to(model_name: str | None, pk: int, text: str) -> str:
    """A link to a row's page: its name and id."""
    url = reverse(f"admin:chat_{model_name}_change", args=[pk])
    return format_html('<a href="{}">{} {}</a>', url, text, pk)
