"""Serves GET /metrics, for any host: Prometheus asks each server by its address."""

from importlib import import_module
from typing import Any

from django.conf import settings

from retrieval import steps
from verse.asgi_messages import Application, Headers, Receive, Scope, Send, send_body, send_json

REFUSAL = b'{"detail":"Send METRICS_TOKEN as a Bearer token.","code":"not_authenticated"}'
NOT_ALLOWED = b'{"detail":"Only GET.","code":"method_not_allowed"}'


def serve_metrics(application: Application) -> Application:
    """Wrap an application. Without METRICS_TOKEN it answers /metrics itself: 404."""
    if not settings.METRICS_TOKEN:
        return application
    exposition: Any = import_module("retrieval.telemetry.exposition")
    exposition.registry()

    async def with_metrics(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"] != exposition.PATH:
            await application(scope, receive, send)
            return
        headers = dict(scope["headers"])
        if not exposition.is_allowed(headers.get(b"authorization", b"")):
            challenge = [(b"www-authenticate", b"Bearer")]
            await send_json(scope, send, REFUSAL, status=401, headers=challenge)
        elif scope["method"] not in ("GET", "HEAD"):
            allow: Headers = [(b"allow", b"GET, HEAD")]
            await send_json(scope, send, NOT_ALLOWED, status=405, headers=allow)
        else:
            accept = headers.get(b"accept", b"").decode("latin-1")
            shown = await steps.run(exposition.render, accept)
            await send_body(scope, send, shown.body, content_type=shown.content_type)

    return with_metrics
