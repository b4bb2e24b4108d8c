"""Answers 413 to a request body over MAX_BODY_BYTES."""

import json

from django.conf import settings

from verse.asgi_messages import Application, Message, Receive, Scope, Send, send_json

# A body over the limit is read to its end, up to this size: a client that still sends when the
# connection closes gets a reset instead of the 413.
MAX_DRAINED_BYTES = 16_000_000


class BodyTooLarge(Exception):
    """The request's body is larger than MAX_BODY_BYTES."""


def limit_body(application: Application) -> Application:
    """Wrap an application. Counts the bytes received, with or without a Content-Length."""

    async def limited(scope: Scope, receive: Receive, send: Send) -> None:
        received_bytes = 0

        async def counted() -> Message:
            nonlocal received_bytes
            message = await receive()
            received_bytes += len(message.get("body", b""))
            if received_bytes > settings.MAX_BODY_BYTES:
                await _drain(message, receive)
                raise BodyTooLarge
            return message

        try:
            await application(scope, counted, send)
        except BodyTooLarge:
            await _refuse(scope, send)

    return limited


async def _drain(message: Message, receive: Receive) -> None:
    remaining_bytes = MAX_DRAINED_BYTES
    while message.get("more_body") and remaining_bytes > 0:
        message = await receive()
        remaining_bytes -= len(message.get("body", b""))


async def _refuse(scope: Scope, send: Send) -> None:
    detail = f"A request holds at most {settings.MAX_BODY_BYTES:,} bytes."
    body = json.dumps({"detail": detail, "code": "too_large"}).encode()
    await send_json(scope, send, body, status=413, headers=_allow_origin(scope))


def _allow_origin(scope: Scope) -> list[tuple[bytes, bytes]]:
    """As CorsMiddleware does it, which this response does not reach."""
    origin = dict(scope["headers"]).get(b"origin", b"")
    if origin.decode("latin-1") not in settings.CORS_ALLOWED_ORIGINS:
        return []
    return [(b"access-control-allow-origin", origin), (b"vary", b"origin")]
