"""Everything stored about a user: exported, and erased."""

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token, digest_of
from chat.memory.embed import finish_embedding_jobs
from chat.models import ApiToken, Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import Answer, FakeOpenAI, HangAfter

pytestmark = pytest.mark.django_db(transaction=True)
CANARIES = [f"canary{number}zebra" for number in range(50)]


def talk(client: APIClient) -> None:
    """Fifty texts in chats and passages, keys, titles."""
    for number, kind in enumerate(("chats", "passages")):
        named = {
            "title": CANARIES[number],
            "reference": CANARIES[2 + number],
            "text": CANARIES[4 + number],
        }
        conversation = client.post(f"/api/{kind}/", named, format="json").json()["id"]
        for canary in CANARIES[6 + 22 * number : 28 + 22 * number]:
            address = f"/api/{kind}/{conversation}/messages/"
            sent = client.post(
                address, {"content": f"The {canary}."}, format="json", HTTP_IDEMPOTENCY_KEY=canary
            )
            assert sent.status_code == 201
    finish_embedding_jobs()


def everything() -> str:
    """All tables, as text."""
    rows = ""
    with connection.cursor() as cursor:
        for table in connection.introspection.table_names(cursor):
            cursor.execute(f'SELECT string_agg(row::text, chr(10)) FROM "{table}" row')
            rows += str(cursor.fetchone()[0])
    return rows


def lines_of(response: Any) -> list[dict[str, Any]]:
    """The lines of a streamed response."""

    async def read(content: AsyncIterator[bytes]) -> bytes:
        return b"".join([part async for part in content])

    return [json.loads(line) for line in asyncio.run(read(response.streaming_content)).splitlines()]


def test_an_export_holds_all_texts_of_the_user_and_no_others(
    alice: User, bob: User, api: Api, remembering: FakeOpenAI, settings: Any
) -> None:
    settings.THROTTLE_MESSAGES = None
    remembering.chat.default = Answer("I see.")
    talk(api(alice))
    api(bob).post("/api/chats/", {"title": "his zebra"}, format="json")
    response = api(alice).get("/api/memory/export/")
    assert (response.status_code, response["Content-Type"]) == (200, "application/x-ndjson")
    lines = lines_of(response)
    text = json.dumps(lines)
    assert lines[0]["username"] == "alice"
    not_of_this_kind = [CANARIES[1], CANARIES[2], CANARIES[4]]
    assert [canary for canary in CANARIES if canary not in text] == not_of_this_kind
    assert "his zebra" not in text
    assert {line["table"] for line in lines} >= {
        "auth_user",
        "api_tokens",
        "passages",
        "chat_messages",
    }
    assert "digest" not in text


def test_an_erasure_leaves_nothing_and_its_receipt_agrees(
    alice: User, bob: User, api: Api, remembering: FakeOpenAI, settings: Any
) -> None:
    settings.THROTTLE_MESSAGES = None
    talk(api(alice))
    his = api(bob).post("/api/chats/", {"title": "Kept"}, format="json").json()["id"]
    before = everything()
    assert before.count("zebra") > 100
    receipt = api(alice).delete("/api/memory/", {"confirm": "alice"}, format="json")
    assert receipt.status_code == 200
    assert receipt.json()["deleted"] == {
        "message_memories": 88,
        "memory_imports": 0,
        "running_answers": 0,
        "idempotency_keys": 44,
        "chat_messages": 44,
        "standalone_chat_messages": 44,
        "passages": 1,
        "standalone_chats": 1,
    }
    after = everything()
    assert [canary for canary in CANARIES if canary in after] == []
    assert StandaloneChat.objects.get().pk == his
    assert lines_of(api(alice).get("/api/memory/export/"))[0]["username"] == "alice"
    assert api(alice).get("/api/memory/search/", {"q": CANARIES[9]}).json()["results"] == []
    assert ApiToken.objects.of(alice).exists()
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM message_memories")
        assert cursor.fetchone() == (0,)


def test_tokens_and_idempotency_keys_are_exported_and_keys_are_erased(
    alice: User, bob: User, api: Api, remembering: FakeOpenAI
) -> None:
    for user in (alice, bob):
        name = f"laptop of {user.username}"
        token, key = create_token(user, name=name)
        client = api(user)
        ids: dict[str, Any] = {}
        for kind in ("chats", "passages"):
            body = {"reference": "A", "text": "B"}
            conversation = client.post(f"/api/{kind}/", body, format="json").json()["id"]
            answer = client.post(
                f"/api/{kind}/{conversation}/messages/",
                {"content": "Hello"},
                format="json",
                HTTP_IDEMPOTENCY_KEY=f"{name}, {kind}",
            )
            ids[kind] = (conversation, answer.json()["user_message"]["id"])
    finish_embedding_jobs()
    tokens = of_table("api_tokens", api(bob))
    assert [line["name"] for line in tokens] == ["laptop of bob", "", ""]
    assert set(tokens[0]) == {"table", "id", "name", "created_at", "last_used_at"}
    (chat, of_chat), (passage, of_passage) = ids["chats"], ids["passages"]
    assert [line | {"created_at": None} for line in of_table("idempotency_keys", api(bob))] == [
        key_line("laptop of bob, chats", chat_id=chat, message_id=of_chat),
        key_line("laptop of bob, passages", passage_id=passage, message_id=of_passage),
    ]
    assert key not in everything()
    assert digest_of(key).hex() not in json.dumps(lines_of(api(bob).get("/api/memory/export/")))
    erased = api(bob).delete("/api/memory/", {"confirm": "bob"}, format="json").json()["deleted"]
    assert erased["idempotency_keys"] == 2
    assert of_table("idempotency_keys", api(bob)) == []
    assert "laptop of bob, " not in everything()
    assert of_table("api_tokens", api(bob))[0]["id"] == token.pk  # they stay with the account
    assert len(of_table("idempotency_keys", api(alice))) == 2


def of_table(table: str, client: APIClient) -> list[dict[str, Any]]:
    """The lines of a table in the user's export."""
    return [line for line in lines_of(client.get("/api/memory/export/")) if line["table"] == table]


def key_line(key: str, **ids: int) -> dict[str, Any]:
    """A line of idempotency_keys, but for its time."""
    none = {"passage_id": None, "chat_id": None, "created_at": None}
    return {"table": "idempotency_keys", "key": key} | none | ids


@pytest.mark.parametrize(
    "body",
    [{}, {"confirm": "Alice"}, {"confirm": "bob"}, {"confirm": ""}, {"confirm": True}],
    ids=str,
)
def test_without_the_users_own_name_nothing_is_erased(
    body: dict[str, Any], alice: User, api: Api
) -> None:
    Passage.objects.create(user=alice, reference="A", text="B")
    response = api(alice).delete("/api/memory/", body, format="json")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert Passage.objects.count() == 1


def test_an_erasure_ends_a_running_answer(alice: User, api: Api, remembering: FakeOpenAI) -> None:
    client = api(alice)
    remembering.chat.script(HangAfter("Canary zebra"))
    chat = client.post("/api/chats/", {}, format="json").json()["id"]
    stream = client.post(
        f"/api/chats/{chat}/messages/",
        {"content": "Go"},
        format="json",
        HTTP_ACCEPT="text/event-stream",
    )
    assert stream.status_code == 200
    remembering.wait_for(lambda: remembering.chat.requests)
    erased = client.delete("/api/memory/", {"confirm": "alice"}, format="json").json()["deleted"]
    assert (erased["running_answers"], erased["standalone_chat_messages"]) == (1, 2)
    remembering.wait_for(lambda: remembering.chat.requests[-1].client_gone_at)
    assert StandaloneChatMessage.objects.count() == 0
    assert "zebra" not in everything()
