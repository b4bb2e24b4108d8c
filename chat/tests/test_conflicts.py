"""Serialization failures: the turn is repeated once, and nothing is lost."""

import threading
import time
from collections.abc import Callable

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from retrieval.queries import execute
from tests.support import PATIENCE_S, database_url

pytestmark = pytest.mark.django_db(transaction=True)
WAITS = "SELECT cardinality(pg_blocking_pids(%s)) > 0"
LOCK_USER = "UPDATE auth_user SET last_login = now() WHERE id = %s"


def when_waiting(pid: int, then: Callable[[], object]) -> threading.Thread:
    """Call ``then`` once the session ``pid`` waits for a lock."""

    def run() -> None:
        until = time.monotonic() + PATIENCE_S
        with psycopg.connect(database_url(connection), autocommit=True) as watch:
            while watch.execute(WAITS, [pid]).fetchone() != (True,):
                assert time.monotonic() < until, "the turn waits for nothing"
                time.sleep(0.01)
        then()

    thread = threading.Thread(target=run)
    thread.start()
    return thread


def post_once(api: Api, user: User, chat: StandaloneChat) -> None:
    """A turn of the chat, which is stored once."""
    address = f"/api/chats/{chat.pk}/messages/"
    response = api(user).post(address, {"content": "Hello"}, format="json")
    assert response.status_code == 201, response.content
    assert StandaloneChatMessage.objects.count() == 2


@pytest.fixture
def pid(fake_openai: FakeOpenAI) -> int:
    """The backend of this thread's session, in which a turn begins."""
    connection.ensure_connection()
    return int(connection.connection.info.backend_pid)


def test_a_turn_that_cannot_be_serialized_is_repeated(pid: int, alice: User, api: Api) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    execute("SET default_transaction_isolation = 'repeatable read'")
    with psycopg.connect(database_url(connection)) as other:
        other.execute(LOCK_USER, [alice.pk])
        thread = when_waiting(pid, other.commit)
        post_once(api, alice, chat)
        thread.join()
