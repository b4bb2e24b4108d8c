"""The app's registration."""

from django.apps import AppConfig


class ChatConfig(AppConfig):
    """People's conversations and the answers to them."""

    name = "chat"
    verbose_name = "Chat"
