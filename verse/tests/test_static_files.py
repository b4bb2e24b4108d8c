"""Static files are sent without a Django request; other paths are the application's."""

import asyncio

from verse.asgi_messages import Message, Receive, Scope, Send
from verse.static_files import serve_static


def get(path: str, method: str = "GET") -> list[Message]:
    """The messages of a response."""
    sent: list[Message] = []

    async def application(scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "from the application"})

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": method, "path": path, "query_string": b"", "headers": []}

    async def request() -> None:
        await serve_static(application)(scope, receive, send)

    asyncio.run(request())
    return sent


def test_files_of_packages_are_sent_and_others_left_to_the_application() -> None:
    start, *pieces = get("/static/admin/css/base.css")
    assert start["status"] == 200
    assert (b"content-type", b'text/css; charset="utf-8"') in start["headers"]
    assert b"".join(piece["body"] for piece in pieces).startswith(b"/*")
    assert get("/static/admin/css/base.css", "HEAD")[1].get("body", b"") == b""
    for path in ("/static/nothing.css", "/static/../settings.py", "/api/chats/", "/"):
        assert get(path) == [{"type": "from the application"}], path
