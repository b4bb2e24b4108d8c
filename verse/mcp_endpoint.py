"""Serves /mcp: the Model Context Protocol over streamable HTTP, by the official SDK.

Without state: each request has a session manager of its own, which ends with it. So any process can
answer any request. The SDK is imported by the first request: most servers never need it.
"""

import json
from collections import deque
from importlib import import_module
from io import BytesIO
from typing import Any, cast

from django.contrib.auth.models import User
from django.core.exceptions import DisallowedHost
from django.core.handlers.asgi import ASGIRequest
from django.db import Error
from rest_framework.exceptions import NotAuthenticated
from rest_framework.request import Request

from chat.auth.api_tokens import BearerAuthentication
from chat.errors import database_unavailable
from retrieval import steps
from verse.asgi_messages import Application, Headers, Message, Receive, Scope, Send, send_json

PATHS = ("/mcp", "/mcp/")


class Refused(Exception):
    """The request is answered without MCP."""

    def __init__(self, status: int, code: str, detail: str, headers: Headers = ()) -> None:
        self.status, self.headers = status, headers
        self.body = json.dumps({"detail": detail, "code": code}, separators=(",", ":")).encode()


def serve_mcp(application: Application) -> Application:
    """Wrap an application: requests to /mcp are not its own."""

    async def with_mcp(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] not in PATHS:
            await application(scope, receive, send)
            return
        try:
            user = await steps.run(_authenticate, scope)
            await _answer(user, scope, receive, send)
        except Refused as refused:
            await send_json(
                scope, send, refused.body, status=refused.status, headers=refused.headers
            )

    return with_mcp


def _authenticate(scope: Scope) -> User:
    """The user of the Bearer token. One query. Raises Refused."""
    request = ASGIRequest(scope, BytesIO())
    try:
        request.get_host()
        authenticated = BearerAuthentication().authenticate(cast("Request", request))
        if authenticated is None:
            raise NotAuthenticated
    except DisallowedHost as error:
        raise Refused(400, "invalid", "The request cannot be understood.") from error
    except NotAuthenticated as error:
        challenge = [(b"www-authenticate", b"Bearer")]
        raise Refused(401, "not_authenticated", str(error.detail), challenge) from error
    except Error as error:
        unavailable = database_unavailable(error)
        raise Refused(503, "database_unavailable", str(unavailable.detail)) from error
    return cast("User", authenticated[0])


async def _answer(user: User, scope: Scope, receive: Receive, send: Send) -> None:
    if scope["method"] != "POST":
        # GET would open a stream of messages from the server, of which there are none.
        raise Refused(405, "method_not_allowed", "Only POST.", [(b"allow", b"POST")])
    server_module, manager_module = await steps.run(_load)
    manager = manager_module.StreamableHTTPSessionManager(
        server_module.server_for(user), json_response=True, stateless=True
    )
    received = await _read_body(receive)  # here: 413 could not leave the manager's task group
    async with manager.run():
        await manager.handle_request(scope, received, send)


async def _read_body(receive: Receive) -> Receive:
    """Read the body; the result gives it again, then what comes after it."""
    messages = deque([await receive()])
    while messages[-1].get("more_body"):
        messages.append(await receive())

    async def again() -> Message:
        return messages.popleft() if messages else await receive()

    return again


def _load() -> tuple[Any, Any]:
    """Import the SDK: 0.6 s of the processor, once."""
    return (
        import_module("chat.assistant_tools.mcp_server"),
        import_module("mcp.server.streamable_http_manager"),
    )
