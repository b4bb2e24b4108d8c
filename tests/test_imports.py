"""Imports on real servers: two processes, a killed one, and who may send a large file."""

import os
import signal
import time
from collections.abc import Callable
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from benchmarks.processes import children_of
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.product_exports import as_json, talk
from chat.transfer.background import ABANDONED_S
from retrieval.schema.locks import IMPORT_LOCK
from tests.support import PATIENCE_S, Server, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
Start = Callable[..., Server]
IMPORTS = "/api/memory/import/"
CONTENT = as_json(talk("1", "a", "b"), talk("2", "c"))


def upload(client: Any, content: bytes = CONTENT) -> Any:
    form = {"format": "chatgpt"}
    return client.post(IMPORTS, data=form, files={"file": ("export.json", content)})


def wait_for(client: Any, number: int, status: str) -> dict[str, Any]:
    """The import once it has the status."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        state: dict[str, Any] = client.get(f"{IMPORTS}{number}/").json()
        if state["status"] == status:
            return state
        time.sleep(0.05)
    raise AssertionError(state)


def in_the_database(statement: str, *values: object) -> Any:
    with psycopg.connect(database_url(connection), autocommit=True) as session:
        return session.execute(statement, values).fetchall()


def test_any_process_shows_an_import_and_the_death_of_another(alice: User, server: Start) -> None:
    """The import waits for a lock that this test holds, so its process is killed in its middle."""
    running = server(WEB_CONCURRENCY="2")
    key = create_token(alice)[1]
    with psycopg.connect(database_url(connection), autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [IMPORT_LOCK])
        number = upload(running.client(key)).json()["id"]
        for _ in range(4):  # each connection leads to either process
            assert running.client(key).get(f"{IMPORTS}{number}/").json()["status"] == "running"
        for worker in children_of(running.process.pid):
            os.kill(worker, signal.SIGKILL)
        running.wait_until_ready(4)
        client = running.client(key)
        beat = "UPDATE memory_imports SET alive_at = now() - make_interval(secs => %s) RETURNING id"
        assert in_the_database(beat, 0) == [(number,)]  # a slow machine starts longer than 20 s
        assert client.get(f"{IMPORTS}{number}/").json()["status"] == "running"
        assert in_the_database(beat, ABANDONED_S) == [(number,)]
        state = wait_for(client, number, "failed")
        assert state["detail"].startswith("The server stopped before the end")
    assert not StandaloneChat.objects.exists()
    again = upload(client).json()["id"]
    assert wait_for(client, again, "done")["messages"] == 3
    assert StandaloneChatMessage.objects.count() == 3


@pytest.mark.soak
def test_a_server_that_stops_ends_its_imports_at_once(alice: User, server: Start) -> None:
    running = server(WEB_CONCURRENCY="1", SHUTDOWN_GRACE="1")
    with psycopg.connect(database_url(connection), autocommit=True) as session:
        session.execute("SELECT pg_advisory_lock(%s)", [IMPORT_LOCK])
        with running.client(create_token(alice)[1]) as client:
            upload(client)
        running.signal(signal.SIGTERM)
        running.process.wait(PATIENCE_S)
    ((status, detail),) = in_the_database("SELECT status, detail FROM memory_imports")
    assert (status, detail.startswith("The server stopped")) == ("failed", True)
    assert not StandaloneChat.objects.exists()


def test_only_known_users_may_send_more_than_a_megabyte(alice: User, server: Start) -> None:
    running = server(IMPORT_MAX_MB="3")
    client = running.client(create_token(alice)[1])
    large = as_json(talk("1", "a", "x" * 2_000_000))
    assert wait_for(client, upload(client, large).json()["id"], "done")["messages"] == 2
    too_large = upload(client, b"x" * 3_100_000)
    assert (too_large.status_code, too_large.json()["code"]) == (413, "too_large")
    elsewhere = client.post("/api/chats/", json={"title": "x" * 1_100_000})
    assert elsewhere.status_code == 413
    for stranger in (
        running.client(),
        running.client("wrong"),
        running.client(Cookie="sessionid=x"),
    ):
        refused = upload(stranger, b"x" * 3_100_000)  # not 413: it was not even counted
        assert (refused.status_code, refused.json()["code"]) == (401, "not_authenticated")
    assert "ERROR" not in running.log
