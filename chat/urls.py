"""The URLs of the API."""

from typing import Any

from django.urls import URLPattern, path

from chat.api import conversation_views as views
from chat.api import import_views, memory_views, token_views, usage_views
from chat.api.conversation_serializers import (
    ChatSerializer,
    KeptChatSerializer,
    KeptPassageSerializer,
    PassageSerializer,
)
from chat.models import Passage, StandaloneChat


def conversation_paths(
    name: str, model: Any, serializer: Any, kept_serializer: Any
) -> list[URLPattern]:
    """The URLs of one kind of conversation: ``chats`` or ``passages``."""
    list_view = views.ConversationsView.as_view(model=model, serializer_class=serializer)
    view = views.ConversationView.as_view(model=model, serializer_class=kept_serializer)
    chat = f"{name}/<int:conversation_id>/"
    message = f"{chat}messages/<int:message_id>/"
    return [
        path(f"{name}/", list_view, name=name),
        path(chat, view, name=f"{name}-one"),
        path(f"{chat}messages/", views.MessagesView.as_view(model=model), name=f"{name}-messages"),
        path(message, views.MessageView.as_view(model=model), name=f"{name}-message"),
        path(f"{message}events/", views.EventsView.as_view(model=model), name=f"{name}-events"),
        path(f"{message}stop/", views.StopView.as_view(model=model), name=f"{name}-stop"),
        path(
            f"{message}regenerate/",
            views.RegenerateView.as_view(model=model),
            name=f"{name}-regenerate",
        ),
    ]


urlpatterns = [
    path("auth/token/", token_views.TokenView.as_view(), name="token"),
    path("auth/tokens/", token_views.TokensView.as_view(), name="tokens"),
    path("auth/tokens/<int:pk>/", token_views.TokenRevokeView.as_view(), name="token-revoke"),
    path("memory/", memory_views.MemoryView.as_view(), name="memory"),
    path("memory/export/", memory_views.ExportView.as_view(), name="memory-export"),
    path("memory/import/", import_views.ImportsView.as_view(), name="imports"),
    path("memory/import/<int:import_id>/", import_views.ImportView.as_view(), name="import"),
    path("memory/search/", memory_views.SearchView.as_view(), name="memory-search"),
    path("usage/", usage_views.UsageView.as_view(), name="usage"),
    *conversation_paths("chats", StandaloneChat, ChatSerializer, KeptChatSerializer),
    *conversation_paths("passages", Passage, PassageSerializer, KeptPassageSerializer),
]
