"""Registers the app: its commands, and its models, whose tables a migration of the chat makes."""

from django.apps import AppConfig


class RetrievalConfig(AppConfig):
    """Embeddings and recall."""

    name = "retrieval"
