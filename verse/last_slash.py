"""Serves an address of the API without its last slash as the one with it.

Django's APPEND_SLASH redirects instead, and a redirected POST loses its body.
"""

from verse.asgi_messages import Application, Receive, Scope, Send

API = "/api/"  # of verse/urls.py; none of its addresses ends otherwise


def add_last_slash(application: Application) -> Application:
    """Wrap an application."""

    async def with_slash(scope: Scope, receive: Receive, send: Send) -> None:
        path = scope["path"]
        if path.startswith(API) and not path.endswith("/"):
            scope = scope | {"path": f"{path}/"}
        await application(scope, receive, send)

    return with_slash
