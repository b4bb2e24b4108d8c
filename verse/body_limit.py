"""Answers 413 to a request body that is too large: verse/uploads.py."""

import json

from django.conf import settings

from chat.openai_api.errors import error_object
from verse.asgi_messages import Application, Message, Receive, Scope, Send, send_json
from verse.uploads import OPENAI_API, max_body_bytes

# A body over the limit is read to its end, up to this size: a client that still sends when the
# connection closes gets a reset instead of the 413.
MAX_DRAINED_BYTES = 16_000_000


class BodyTooLarge(Exception):
    """The request's body is larger than ``max_bytes``."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes


def limit_body(application: Application) -> Application:
    """Wrap an application. Counts the bytes received, with or without a Content-Length."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0
        max_bytes = await max_body_bytes(scope)
        if not max_bytes:
            scope, receive = await _without_body(scope, receive)

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if max_bytes and received_bytes > max_bytes:
                await _drain(message, receive)
                raise BodyTooLarge(max_bytes)
            return message

        try:
            await application(scope, counted, send)
        except BodyTooLarge as error:
            await _refuse(scope, send, error.max_bytes)

    return limited


async def _drain(message: Message, receive: Receive) -> None:
    remaining_bytes = MAX_DRAINED_BYTES
    while message.get("more_body") and remaining_bytes > 0:
        message = await receive()
        remaining_bytes -= len(message.get("body", b""))


async def _without_body(scope: Scope, receive: Receive) -> tuple[Scope, Receive]:
    """The request with an empty body; the API answers it as it answers an unknown user."""
    await _drain(await receive(), receive)
    headers = [pair for pair in scope["headers"] if not pair[0].startswith(b"content-")]

    async def receive_nothing() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    return scope | {"headers": headers}, receive_nothing


async def _refuse(scope: Scope, send: Send, max_bytes: int) -> None:
    detail = f"A request holds at most {max_bytes:,} bytes."
    refusal: dict[str, object] = {"detail": detail, "code": "too_large"}
    if scope["path"].startswith(OPENAI_API):
        refusal = error_object(413, "too_large", detail)
    body = json.dumps(refusal).encode()
    await send_json(scope, send, body, status=413, headers=_allow_origin(scope))


def _allow_origin(scope: Scope) -> list[tuple[bytes, bytes]]:
    """As CorsMiddleware does it, which this response does not reach."""
    origin = dict(scope["headers"]).get(b"origin", b"")
    if origin.decode("latin-1") not in settings.CORS_ALLOWED_ORIGINS:
        return []
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
