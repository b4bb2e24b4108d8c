"""The addresses of the API."""

from django.urls import URLPattern, path

from chat import memory_views, token_views, views
from chat.models import Passage, StandaloneChat


def conversation_paths(name: str, model: type[Passage | StandaloneChat]) -> list[URLPattern]:
    """The addresses of one kind of conversation: ``chats`` or ``passages``."""
    one = f"{name}/<int:conversation_id>/"
    message = f"{one}messages/<int:message_id>/"
    return [
        path(f"{name}/", views.of_kind(views.ConversationsView, model), name=name),
        path(one, views.of_kind(views.ConversationView, model), name=f"{name}-one"),
        path(f"{one}messages/", views.of_kind(views.MessagesView, model), name=f"{name}-messages"),
        path(message, views.of_kind(views.MessageView, model), name=f"{name}-message"),
        path(f"{message}events/", views.of_kind(views.EventsView, model), name=f"{name}-events"),
        path(f"{message}stop/", views.of_kind(views.StopView, model), name=f"{name}-stop"),
        path(f"{message}regenerate/", views.of_kind(views.RegenerateView, model), name=f"{name}-regenerate"),
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
