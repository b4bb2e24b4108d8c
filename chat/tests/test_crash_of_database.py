"""The database fails in the middle of a turn: what it lost, and what the user is answered."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial

import psycopg
import pytest
from django.contrib.auth.models import User
from django.db import InternalError, connection

from chat.answers import save_answer, turns
from chat.answers.save_answer import Ending
from chat.errors import is_database_away
from chat.models import StandaloneChat, StandaloneChatMessage, Status
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from retrieval.token_usage import Tokens

pytestmark = pytest.mark.django_db
MEMORIES = [{"kind": "chat", "id": 7, "score": 1.0}]


@pytest.mark.parametrize("tokens", [None, Tokens(1, 1, 0)])
def test_an_answer_is_stored_with_the_memories_that_a_crash_lost(
    tokens: Tokens | None, alice: User
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    turn = turns.start(chat, "Where is the piano?", key=None)
    save_answer.save_context(turn.answer, MEMORIES)
    chat.messages.update(context=None)  # its commit did not wait for the disk
    save_answer.finish(
        turn.answer,
        "In the attic.",
        Ending(Status.COMPLETE),
        running_id=turn.running_id,
        tokens=tokens,
    )
    turn.answer.refresh_from_db()
    assert (turn.answer.status, turn.answer.content) == ("complete", "In the attic.")
    assert (turn.answer.context or [])[: len(MEMORIES)] == MEMORIES


FULL = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN RAISE ''no space'' USING ERRCODE = ''disk_full''; END';
    CREATE TRIGGER refuse BEFORE UPDATE OF context ON standalone_chat_messages
        FOR EACH ROW WHEN (NEW.status = 'streaming') EXECUTE FUNCTION refuse()
"""
# PostgreSQL ends the session in the middle of a COMMIT.
ENDS_IN_COMMIT = """
    CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql
        AS 'BEGIN PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NULL; END';
    CREATE CONSTRAINT TRIGGER refuse AFTER INSERT ON standalone_chat_messages
        DEFERRABLE INITIALLY DEFERRED FOR EACH ROW EXECUTE FUNCTION refuse()
"""
WELL_AGAIN = "DROP TRIGGER refuse ON standalone_chat_messages; DROP FUNCTION refuse()"


def run(statements: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statements)


@pytest.fixture
def ends_in_commit(transactional_db: None) -> Iterator[None]:
    run(ENDS_IN_COMMIT)
    yield
    run(WELL_AGAIN)


@pytest.mark.usefixtures("ends_in_commit")
def test_a_connection_that_ends_in_a_commit_is_a_503(alice: User, api: Api) -> None:
    client, chat = api(alice), StandaloneChat.objects.create(user=alice)
    body = {"content": "Where is the piano?"}
    answer = client.post(f"/api/chats/{chat.pk}/messages/", body, format="json")
    connection.close()
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


INTERNAL = "DO $$ BEGIN RAISE 'unexpected' USING ERRCODE = 'XX000'; END $$"


def test_an_error_of_the_driver_in_a_commit_is_a_database_away() -> None:
    with pytest.raises(InternalError) as broken, connection.wrap_database_errors:
        raise psycopg.InternalError("received 2 results from command 'COMMIT'")
    assert is_database_away(broken.value)
    with pytest.raises(InternalError) as of_the_server:
        run(INTERNAL)
    assert not is_database_away(of_the_server.value)


@pytest.fixture
def full_disk(transactional_db: None) -> Iterator[Callable[[], None]]:
    """What an answer was given cannot be written, until the result is called."""
    with ExitStack() as stack:
        run(FULL)
        stack.callback(run, WELL_AGAIN)
        yield stack.close


@pytest.mark.django_db(transaction=True)
@pytest.mark.parametrize("accept", ["application/json", "text/event-stream"])
def test_a_full_disk_before_the_model_is_503_and_the_key_succeeds(
    accept: str, alice: User, api: Api, remembering: FakeOpenAI, full_disk: Callable[[], None]
) -> None:
    client, chat = api(alice), StandaloneChat.objects.create(user=alice)
    address, body = f"/api/chats/{chat.pk}/messages/", {"content": "Where is the piano?"}
    send = partial(client.post, address, body, format="json", headers={"Idempotency-Key": "k"})
    StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="user", content="The piano is in the attic."
    )
    refused = send(headers={"Idempotency-Key": "k", "Accept": accept})
    assert (refused.status_code, refused.json()["code"]) == (503, "database_unavailable")
    assert refused.json()["user_message"]["content"] == body["content"]
    full_disk()
    assert send().status_code == 201
    assert chat.messages.filter(content=body["content"]).count() == 1
    assert len(remembering.chat.requests) == 1
