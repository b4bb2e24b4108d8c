"""The addresses of the API."""

from django.urls import URLPattern, path

from chat.api import conversation_views, memory_views, token_views
from chat.models import Passage, StandaloneChat


def conversation_paths(name: str, model: type[Passage | StandaloneChat]) -> list[URLPattern]:
    """The addresses of one kind of conversation: ``chats`` or ``passages``."""
    one = f"{name}/<int:conversation_id>/"
    message = f"{one}messages/<int:message_id>/"
    return [
        path(
            f"{name}/",
            conversation_views.of_kind(conversation_views.ConversationsView, model),
            name=name,
        ),
        path(
            one,
            conversation_views.of_kind(conversation_views.ConversationView, model),
            name=f"{name}-one",
        ),
        path(
            f"{one}messages/",
            conversation_views.of_kind(conversation_views.MessagesView, model),
            name=f"{name}-messages",
        ),
        path(
            message,
            conversation_views.of_kind(conversation_views.MessageView, model),
            name=f"{name}-message",
        ),
        path(
            f"{message}events/",
            conversation_views.of_kind(conversation_views.EventsView, model),
            name=f"{name}-events",
        ),
        path(
            f"{message}stop/",
            conversation_views.of_kind(conversation_views.StopView, model),
            name=f"{name}-stop",
        ),
        path(
            f"{message}regenerate/",
            conversation_views.of_kind(conversation_views.RegenerateView, model),
            name=f"{name}-regenerate",
        ),
    ]


urlpatterns = [
    path("auth/token/", token_views.TokenView.as_view(), name="token"),
    path("auth/tokens/", token_views.TokensView.as_view(), name="tokens"),
    path("auth/tokens/<int:pk>/", token_views.TokenRevokeView.as_view(), name="token-revoke"),
    path("memory/", memory_views.MemoryView.as_view(), name="memory"),
    path("memory/export/", memory_views.ExportView.as_view(), name="memory-export"),
    path("memory/search/", memory_views.SearchView.as_view(), name="memory-search"),
    *conversation_paths("chats", StandaloneChat),
    *conversation_paths("passages", Passage),
]
