from django.apps import AppConfig


class PagesConfig(AppConfig):
    """Templates, scripts and styles of the pages. No models."""

    name = "chat.pages"
    label = "pages"
    verbose_name = "Pages"
