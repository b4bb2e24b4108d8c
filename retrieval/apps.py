"""The app's registration: for its commands; its tables are made by the migrations of whoever has messages."""

from django.apps import AppConfig


class RetrievalConfig(AppConfig):
    """Embeddings and recall."""

    name = "retrieval"
