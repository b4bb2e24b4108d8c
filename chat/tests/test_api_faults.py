"""What every view answers when the method, the database or the rights are missing."""

from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import FakeOpenAI

pytestmark = pytest.mark.django_db
# As if the database went away while a turn is prepared, and were back when its answer is saved.
LOSE_CONTEXT = """
    CREATE FUNCTION lose_connection() RETURNS trigger LANGUAGE plpgsql AS $$
    BEGIN RAISE EXCEPTION 'away' USING ERRCODE = 'admin_shutdown'; END $$;
    CREATE TRIGGER lose_context BEFORE UPDATE OF context ON standalone_chat_messages
    FOR EACH ROW WHEN (NEW.status = 'streaming') EXECUTE FUNCTION lose_connection()
"""
KEEP_CONTEXT = "DROP FUNCTION lose_connection CASCADE"


def test_head_is_get_without_a_body(alice: User, api: Api) -> None:
    got, headed = api(alice).get("/api/chats/"), api(alice).head("/api/chats/")
    assert (headed.status_code, headed.content) == (200, b"")
    assert headed["Content-Type"] == got["Content-Type"] == "application/json"
    assert api(alice).head("/api/memory/").status_code == 200
    assert api(alice).head("/api/chats/999/").status_code == 404


def test_options_names_the_methods(alice: User, api: Api) -> None:
    answer = api(alice).options("/api/chats/")
    assert (answer.status_code, answer["Allow"]) == (200, "GET, POST, HEAD, OPTIONS")
    assert answer.json()["renders"] == ["application/json"]
    assert api(alice).put("/api/chats/").json()["code"] == "method_not_allowed"


def test_a_read_only_database_is_a_503_and_reading_works(alice: User, api: Api) -> None:
    client = api(alice)
    assert client.get("/api/chats/").status_code == 200  # the token's last use is written
    with connection.cursor() as cursor:
        cursor.execute("SET TRANSACTION READ ONLY")
    answer = client.post("/api/chats/", {}, format="json")
    assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")


@pytest.mark.django_db(transaction=True)
def test_without_a_database_every_request_is_a_503(
    alice: User, api: Api, monkeypatch: pytest.MonkeyPatch
) -> None:
    client = api(alice)
    chat = StandaloneChat.objects.create(user=alice)
    connection.close()
    requests: list[tuple[Any, str]] = [
        (client.get, "/api/chats/"),
        (client.get, f"/api/chats/{chat.pk}/messages/"),
        (client.get, "/api/memory/search/?q=x"),
        (client.post, "/api/chats/"),
    ]
    with monkeypatch.context() as patch:
        patch.setitem(connection.settings_dict, "NAME", "no_such_database")
        answers = [send(address) for send, address in requests]
    body = {
        "detail": "The database cannot be reached at the moment; try again.",
        "code": "database_unavailable",
    }
    assert {answer.status_code for answer in answers} == {503}
    assert [answer.json() for answer in answers] == [body] * len(requests)


@pytest.mark.django_db(transaction=True)
def test_a_database_lost_in_mid_turn_is_a_503(
    alice: User, api: Api, fake_openai: FakeOpenAI
) -> None:
    client, chat = api(alice), StandaloneChat.objects.create(user=alice)

    def post(content: str, key: str, accept: str = "application/json") -> Any:
        headers = {"Idempotency-Key": key, "Accept": accept}
        address, body = f"/api/chats/{chat.pk}/messages/", {"content": content}
        return client.post(address, body, format="json", headers=headers)

    assert post("Hello", "first").status_code == 201
    connection.cursor().execute(LOSE_CONTEXT)
    try:
        answers = [
            post("Again", "key", accept) for accept in ("application/json", "text/event-stream")
        ]
    finally:
        connection.cursor().execute(KEEP_CONTEXT)
    for answer in answers:
        assert (answer.status_code, answer.json()["code"]) == (503, "database_unavailable")
    assert post("Again", "key").status_code == 201
    contents = [message.content for message in StandaloneChatMessage.objects.order_by("id")]
    assert contents == ["Hello", "You said: Hello", "Again", "You said: Again"]
