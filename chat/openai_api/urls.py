"""The URLs of /v1."""

from django.urls import path

from chat.openai_api import completion_views as views

urlpatterns = [
    path("models", views.ModelsView.as_view(), name="openai-models"),
    path("models/<str:name>", views.ModelView.as_view(), name="openai-model"),
    path("chat/completions", views.CompletionsView.as_view(), name="openai-completions"),
]
