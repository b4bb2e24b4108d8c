"""Django's ASGI handler, changed to run each request as one step in a reused thread.

docs/decisions/0014-requests.md
"""

import asyncio
from http import HTTPStatus
from typing import IO, Any, cast

from django.core.exceptions import RequestAborted
from django.core.handlers.asgi import ASGIHandler, get_script_prefix
from django.core.signals import request_started
from django.http.response import HttpResponseBase
from django.urls import set_script_prefix

from retrieval import steps
from verse.asgi_messages import Receive, Scope, Send

# A client that does not wait as Retry-After says would keep the processor busy with refusals, 5 ms
# each: benchmarks/busy_user.py measures what that costs others.
REFUSAL_PAUSE_S = 0.25


class OneStepHandler(ASGIHandler):
    """Reads the body, runs middleware and view in one step, then sends the response.

    Django's own handler changes threads twice for each synchronous middleware class, about twelve
    times a request, and starts two threads for each request.
    """

    def load_middleware(self, is_async: bool = False) -> None:
        """Load it as for a WSGI server: no middleware needs the event loop."""
        super().load_middleware(is_async=False)

    async def handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. If the client disconnects, the step runs on and cleans up itself."""
        try:
            body = await self.read_body(receive)
        except RequestAborted:
            return
        response = await steps.run(self.respond, scope, body)
        if response.status_code == HTTPStatus.TOO_MANY_REQUESTS:
            await asyncio.sleep(REFUSAL_PAUSE_S)
        if response.streaming:
            await self.send_stream(response, receive, send)
        else:
            await self.send_response(response, send)

    def respond(self, scope: Scope, body: IO[bytes]) -> HttpResponseBase:
        """The step: from the signal request_started to the response, closed unless it streams."""
        set_script_prefix(get_script_prefix(scope))
        request_started.send(sender=self.__class__, scope=scope)
        request, refusal = self.create_request(scope, body)
        response: Any = self.get_response(request) if request else refusal
        # The sender of the signal request_finished. Django has no public way to set it.
        response._handler_class = self.__class__  # noqa: SLF001
        if not response.streaming:
            response.close()
        return cast("HttpResponseBase", response)

    async def send_stream(self, response: HttpResponseBase, receive: Receive, send: Send) -> None:
        """Send until the response or the connection ends. Closes the response in a step."""
        sending = asyncio.create_task(self.send_response(response, send))
        disconnected = asyncio.ensure_future(receive())
        disconnected.add_done_callback(lambda _: sending.cancel())
        try:
            await asyncio.wait([sending])
        finally:
            sending.cancel()
            disconnected.cancel()
            await steps.run(response.close)
        if not sending.cancelled():
            sending.result()
