"""Requests are one step each: signals, threads, connections, and clients that leave."""

import asyncio
import sys
import threading
import time
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
from django.core.signals import request_finished, request_started
from django.db import connection
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.test import override_settings
from django.urls import path

from retrieval import steps
from tests.support import PATIENCE_S
from verse import asgi_handler
from verse.asgi_handler import OneStepHandler
from verse.asgi_messages import Message
from verse.urls import handler500

__all__ = ["handler500", "urlpatterns"]

pytestmark = pytest.mark.django_db(transaction=True)
begun, may_end, stream_ended = threading.Event(), threading.Event(), threading.Event()
refused_once = threading.Event()


def use_database(request: HttpRequest) -> HttpResponse:
    """Take a connection."""
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_backend_pid()")
        return HttpResponse(cursor.fetchone()[0])


def wait(request: HttpRequest) -> HttpResponse:
    """Take a connection and keep it until the test lets the view end."""
    response = use_database(request)
    begun.set()
    may_end.wait(PATIENCE_S)
    return response


def stream(request: HttpRequest) -> StreamingHttpResponse:
    """Stream without end."""

    async def pieces() -> AsyncIterator[bytes]:
        try:
            while True:
                yield b"piece"
                await asyncio.sleep(0.01)
        finally:
            stream_ended.set()

    return StreamingHttpResponse(pieces())


def refuse(request: HttpRequest) -> HttpResponse:
    refused_once.set()
    return HttpResponse(status=429)


def fail(request: HttpRequest) -> HttpResponse:
    raise ValueError


urlpatterns = [
    path("database/", use_database),
    path("wait/", wait),
    path("stream/", stream),
    path("refuse/", refuse),
    path("fail/", fail),
]


class Client:
    """Sends one request to the handler, in this process."""

    def __init__(self, address: str) -> None:
        self.scope = {
            "type": "http",
            "method": "GET",
            "path": address,
            "headers": [(b"host", b"localhost")],
        }
        self.sent: list[Message] = []
        self.first_piece = asyncio.Event()
        self.leaves = asyncio.Event()
        self._asked = False

    async def receive(self) -> Message:
        """The empty body, then nothing until the client leaves."""
        if not self._asked:
            self._asked = True
            return {"type": "http.request", "body": b"", "more_body": False}
        await self.leaves.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: Message) -> None:
        self.sent.append(message)
        if message.get("body"):
            self.first_piece.set()

    def request(self) -> "asyncio.Task[None]":
        """The request as a task."""
        return asyncio.create_task(OneStepHandler()(self.scope, self.receive, self.send))


@pytest.fixture(autouse=True)
def views() -> Iterator[None]:
    """This module's URLs."""
    for event in (begun, may_end, stream_ended, refused_once):
        event.clear()
    with override_settings(ROOT_URLCONF=sys.modules[__name__]):
        yield


@pytest.fixture
def signals() -> Iterator[list[tuple[str, Any, int]]]:
    """The signals of requests: name, sender, thread."""
    received: list[tuple[str, Any, int]] = []

    def started(sender: Any, **values: Any) -> None:
        received.append(("started", sender, threading.get_ident()))

    def finished(sender: Any, **values: Any) -> None:
        received.append(("finished", sender, threading.get_ident()))

    request_started.connect(started)
    request_finished.connect(finished)
    yield received
    request_started.disconnect(started)
    request_finished.disconnect(finished)


async def get(address: str) -> list[Message]:
    """All messages of a response."""
    client = Client(address)
    await client.request()
    return client.sent


def test_both_signals_are_sent_in_the_requests_only_thread(
    signals: list[tuple[str, Any, int]],
) -> None:
    start, body = asyncio.run(get("/database/"))
    assert (start["status"], int(body["body"]) > 0) == (200, True)
    (started, finished) = signals
    assert [started[0], finished[0]] == ["started", "finished"]
    assert started[1:] == finished[1:] == (OneStepHandler, started[2])
    assert started[2] != threading.get_ident()


def test_one_request_after_the_other_uses_the_same_thread(
    signals: list[tuple[str, Any, int]],
) -> None:
    for _ in range(3):
        assert steps.join(PATIENCE_S)  # the thread is idle again
        asyncio.run(get("/database/"))
    assert len({thread for _, _, thread in signals}) == 1


def test_a_failing_view_is_a_500_and_the_request_is_finished(
    signals: list[tuple[str, Any, int]],
) -> None:
    start, body = asyncio.run(get("/fail/"))
    assert (start["status"], b'"code":"error"' in body["body"]) == (500, True)
    assert [name for name, *_ in signals] == ["started", "finished"]


def backends() -> int:
    """Other connections of this database."""
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT count(*) FROM pg_stat_activity
            WHERE datname = current_database() AND pid <> pg_backend_pid()
        """)
        return int(cursor.fetchone()[0])


def test_a_cancelled_requests_step_ends_and_returns_its_connection(
    signals: list[tuple[str, Any, int]],
) -> None:
    async def cancel() -> None:
        task = Client("/wait/").request()
        await asyncio.to_thread(begun.wait, PATIENCE_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    assert steps.join(PATIENCE_S)
    before = backends()
    asyncio.run(cancel())
    assert [name for name, *_ in signals] == ["started"]
    may_end.set()
    assert steps.join(PATIENCE_S)
    assert [name for name, *_ in signals] == ["started", "finished"]
    until = time.monotonic() + PATIENCE_S
    while backends() > before and time.monotonic() < until:
        time.sleep(0.01)  # the server ends the process of a closed connection a little later
    assert backends() <= before


def test_a_stream_ends_when_its_client_leaves(signals: list[tuple[str, Any, int]]) -> None:
    async def leave() -> None:
        client = Client("/stream/")
        task = client.request()
        await client.first_piece.wait()
        client.leaves.set()
        await asyncio.wait_for(task, PATIENCE_S)

    asyncio.run(leave())
    assert stream_ended.is_set()
    assert [name for name, *_ in signals] == ["started", "finished"]


def test_a_cancelled_stream_is_closed(signals: list[tuple[str, Any, int]]) -> None:
    async def cancel() -> None:
        client = Client("/stream/")
        task = client.request()
        await client.first_piece.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(cancel())
    assert stream_ended.is_set()
    assert [name for name, *_ in signals] == ["started", "finished"]


def test_a_client_that_leaves_while_it_sends_starts_no_step(
    signals: list[tuple[str, Any, int]],
) -> None:
    async def leave() -> None:
        client = Client("/database/")
        client._asked = True
        client.leaves.set()
        await client.request()
        assert client.sent == []

    asyncio.run(leave())
    assert signals == []


def test_a_refusal_waits_without_a_thread_or_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(asgi_handler, "REFUSAL_PAUSE_S", PATIENCE_S)

    async def refuse_and_answer() -> None:
        refused = Client("/refuse/")
        task = refused.request()
        await asyncio.to_thread(refused_once.wait, PATIENCE_S)
        assert await asyncio.to_thread(steps.join, PATIENCE_S)
        assert (await get("/database/"))[0]["status"] == 200
        assert refused.sent == []
        task.cancel()

    asyncio.run(refuse_and_answer())


def test_a_refusal_is_sent_after_a_pause() -> None:
    began = time.monotonic()
    start, _ = asyncio.run(get("/refuse/"))
    assert start["status"] == 429
    assert time.monotonic() - began >= asgi_handler.REFUSAL_PAUSE_S
