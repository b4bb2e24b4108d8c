"""The limit to compare with: an ASGI application that only streams, on the same server, no Django behind it."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

TOKENS = 50
TOKENS_PER_S = 25


async def application(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[..., Any]
) -> None:
    """Fifty events at 25 a second, whatever is asked."""
    if scope["type"] == "lifespan":
        await receive()
        print("Application startup complete.", flush=True)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send(
        {
            "type": "http.response.start",
            "status": 200,
            "headers": [(b"content-type", b"text/event-stream")],
        }
    )
    for number in range(TOKENS):
        await send(
            {
                "type": "http.response.body",
                "body": b'event: delta\ndata: {"text": "word "}\n\n',
                "more_body": True,
            }
        )
        if number + 1 < TOKENS:
            await asyncio.sleep(1 / TOKENS_PER_S)
    await send({"type": "http.response.body", "body": b"event: done\ndata: {}\n\n"})
