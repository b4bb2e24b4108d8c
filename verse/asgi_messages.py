"""Types of the ASGI protocol, and answers that need no Django request."""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from typing import Any

Message = Mapping[str, Any]
Scope = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]
Headers = Iterable[tuple[bytes, bytes]]
Application = Callable[[Scope, Receive, Send], Awaitable[None]]


async def send_json(
    scope: Scope, send: Send, body: bytes, *, status: int = 200, headers: Headers = ()
) -> None:
    """Send a whole response; for HEAD without the body, but with its length."""
    await send_body(
        scope, send, body, content_type="application/json", status=status, headers=headers
    )


async def send_body(
    scope: Scope,
    send: Send,
    body: bytes,
    *,
    content_type: str,
    status: int = 200,
    headers: Headers = (),
) -> None:
    """Like ``send_json``, for any content."""
    headers = [
        *headers,
        (b"content-type", content_type.encode()),
        (b"content-length", str(len(body)).encode()),
    ]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": b"" if scope["method"] == "HEAD" else body})
