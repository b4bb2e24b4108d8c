"""Content negotiation for responses that are streams: server-sent events, and JSON Lines."""

from typing import Any, cast

from rest_framework.negotiation import DefaultContentNegotiation
from rest_framework.renderers import BaseRenderer
from rest_framework.request import Request

EVENT_STREAM = "text/event-stream"
JSON_LINES = "application/x-ndjson"


def accepts(request: Request, media_type: str) -> bool:
    return media_type in request.headers.get("Accept", "")


class StreamNegotiation(DefaultContentNegotiation):
    """Accepts ``media_type`` too; errors before the stream begins are JSON nevertheless."""

    media_type: str

    def select_renderer(
        self, request: Request, renderers: Any, format_suffix: str | None = None
    ) -> tuple[BaseRenderer, str]:
        if accepts(request, self.media_type):
            return renderers[0], renderers[0].media_type
        return cast(
            "tuple[BaseRenderer, str]", super().select_renderer(request, renderers, format_suffix)
        )


class EventNegotiation(StreamNegotiation):
    media_type = EVENT_STREAM


class LinesNegotiation(StreamNegotiation):
    media_type = JSON_LINES
