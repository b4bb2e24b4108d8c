"""Lists by cursor: a row that is added meanwhile moves no other to another page."""

from rest_framework.pagination import CursorPagination


class Pages(CursorPagination):
    """Newest first; ``?page_size=`` up to 100."""

    page_size = 50
    max_page_size = 100
    page_size_query_param = "page_size"
    ordering = ("-created_at", "-id")


class MessagePages(Pages):
    """Oldest first."""

    ordering = ("created_at", "id")
