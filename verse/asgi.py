"""The server's entry: a request's size, start and stop; all else is Django's.

`gunicorn verse.asgi:application`; any ASGI server that speaks the lifespan protocol will do.
"""

import json
import logging
import os
import threading
from collections.abc import Awaitable, Callable, Mapping
from importlib import import_module
from typing import Any

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")

import django
from asgiref.sync import sync_to_async
from django.conf import settings
from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import Error, close_old_connections, reset_queries

settings.DATABASES["default"] = (
    settings.SERVER_DATABASE
)  # requests go through a pool, commands connect directly
django.setup(set_prefix=False)

from chat.answers import runner
from retrieval.token_count import encoding
from verse.health import direct_connection
from verse.logs import log_failed_thread

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Mapping[str, Any]], Awaitable[None]]

logger = logging.getLogger("verse")
NO_KEY = "No OpenAI API key configured - RAG functionality will be disabled"
# A body over the limit is read to its end up to here, so that its sender reads the 413 instead of a reset.
MAX_DRAINED_BYTES = 16_000_000


class BodyTooLarge(Exception):
    """The request's body is larger than MAX_BODY_BYTES."""


class OneHopHandler(ASGIHandler):
    """Django's handler, with one change to a thread a request.

    Django's own changes twice for each of its middleware classes: a dozen times a request, each waiting for the
    interpreter's lock when others work. docs/decisions/0006-running-answers.md
    """

    def load_middleware(self, is_async: bool = False) -> None:
        """The chain as for a synchronous server: its one asynchronous part begins with what is asynchronous only."""
        super().load_middleware(is_async=False)
        # Without the wrapper that makes it synchronous:
        self._middleware_chain = self._middleware_chain.awaitable  # type: ignore[has-type]


django_application = OneHopHandler()
# A request's thread is new, and its connections are: nothing is left over that would be worth a change of threads.
for left_over in (close_old_connections, reset_queries):
    request_started.disconnect(left_over)


async def application(scope: Message, receive: Receive, send: Send) -> None:
    """Answer one connection of the ASGI server."""
    if scope["type"] == "lifespan":
        await lifespan(receive, send)
    else:
        await limited(scope, receive, send)


async def lifespan(receive: Receive, send: Send) -> None:
    """Start (the database and a local model are awaited) and stop (running answers get SHUTDOWN_GRACE)."""
    await receive()
    await sync_to_async(start)()
    await send({"type": "lifespan.startup.complete"})
    await receive()
    await sync_to_async(runner.drain)(settings.SHUTDOWN_GRACE_S)
    await send({"type": "lifespan.shutdown.complete"})


def start() -> None:
    """Say what is missing and that the server is ready; a database that is away does not hold up the start."""
    threading.excepthook = log_failed_thread
    # Loaded now, about a second's work, instead of by the first requests while others queue behind them.
    import_module(settings.ROOT_URLCONF)
    encoding()
    try:
        with direct_connection() as direct:
            direct.ensure_connection()
    except Error as error:
        logger.warning(
            "The database cannot be reached yet: %s", type(error.__cause__ or error).__name__
        )
    if settings.EMBEDDINGS == "openai" and not settings.OPENAI_API_KEY:
        logger.warning(NO_KEY)
    runner.start()
    logger.info("Application startup complete.")


async def limited(scope: Message, receive: Receive, send: Send) -> None:
    """Answer 413 to a body over MAX_BODY_BYTES, announced or not."""
    received = 0

    async def counted() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > settings.MAX_BODY_BYTES:
            await read_on(message, receive)
            raise BodyTooLarge
        return message

    try:
        await django_application(scope, counted, send)
    except BodyTooLarge:
        await refuse_body(send)


async def read_on(message: Message, receive: Receive) -> None:
    """Read the rest of a body that is refused, within MAX_DRAINED_BYTES."""
    left = MAX_DRAINED_BYTES
    while message.get("more_body") and left > 0:
        message = await receive()
        left -= len(message.get("body", b""))


async def refuse_body(send: Send) -> None:
    """413, in the API's form."""
    detail = f"A request holds at most {settings.MAX_BODY_BYTES:,} bytes."
    body = json.dumps({"detail": detail, "code": "too_large"}).encode()
    headers = [(b"content-type", b"application/json"), (b"content-length", str(len(body)).encode())]
    await send({"type": "http.response.start", "status": 413, "headers": headers})
    await send({"type": "http.response.body", "body": body})
