from django.apps import AppConfig


class ChatConfig(AppConfig):
    """Users' conversations and the answers to them."""

    name = "chat"
    verbose_name = "Chat"
