"""Django's ASGI handler, changed to run each request in a single thread."""

from django.core.handlers.asgi import ASGIHandler
from django.core.signals import request_started
from django.db import close_old_connections, reset_queries


class OneThreadHandler(ASGIHandler):
    """Changes threads once a request.

    Django's own handler changes threads twice for each synchronous middleware class: about twelve
    times a request, each waiting for the interpreter's lock. docs/decisions/0006-running-answers.md
    """

    def __init__(self) -> None:
        super().__init__()
        # Each request has a new thread with new connections, so there is nothing to clean up
        # before it. Each of these receivers would cost a change of threads.
        for receiver in (close_old_connections, reset_queries):
            request_started.disconnect(receiver)

    def load_middleware(self, is_async: bool = False) -> None:
        """Load the chain as for a synchronous server, but start with its asynchronous part."""
        super().load_middleware(is_async=False)
        # async_to_sync wraps the outermost, asynchronous middleware: take it out of the wrapper.
        self._middleware_chain = self._middleware_chain.awaitable  # type: ignore[has-type]
