"""A bare ASGI application that only streams: the limit to compare Verse with."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

TOKENS = 50
TOKENS_PER_S = 25


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]
) -> None:
    """Stream fifty events at 25 a second for any request."""
    if scope["type"] == "lifespan":
        await receive()
        print("Application startup complete.", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    headers = [(b"content-type", b"text/event-stream")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    delta = b'event: delta\ndata: {"text": "word "}\n\n'
    for number in range(TOKENS):
        await send({"type": "http.response.body", "body": delta, "more_body": True})
        if number + 1 < TOKENS:
            await asyncio.sleep(1 / TOKENS_PER_S)
    await send({"type": "http.response.body", "body": b"event: done\ndata: {}\n\n"})
