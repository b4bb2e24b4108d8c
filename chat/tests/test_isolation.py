"""Another user's object looks like a missing one, byte for byte, by every route and method."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test.utils import CaptureQueriesContext
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token
from chat.models import ApiToken, ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from chat.models.imports import MemoryImport, has_imports
from chat.tests.support import Api
from fake_openai import FakeOpenAI

pytestmark = pytest.mark.django_db(transaction=True)
METHODS = ("get", "post", "patch", "put", "delete")
MISSING = 999_999_999
OPEN = {"api/auth/token/", "api/schema/", "api/docs/"}  # they show no user's objects
BODY = {
    "content": "Changed",
    "title": "Changed",
    "reference": "Changed",
    "text": "Changed",
    "memory": False,
}


def api_routes(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """The pattern of every route under /api/."""
    for pattern in get_resolver().url_patterns if patterns is None else patterns:
        route = prefix + str(pattern.pattern)
        if isinstance(pattern, URLResolver):
            yield from api_routes(pattern.url_patterns, route)
        elif isinstance(pattern, URLPattern) and route.startswith("api/"):
            yield route


WITH_OBJECT = [
    pytest.param(route, marks=pytest.mark.newest_schema if "import" in route else ())
    for route in sorted(api_routes())
    if "<" in route
]


@pytest.fixture
def hers(alice: User) -> dict[str, dict[str, int]]:
    """Ids of alice's objects, by the first part of the route and the name in it."""
    chat = StandaloneChat.objects.create(user=alice, title="Hers")
    passage = Passage.objects.create(user=alice, reference="Hers", text="Hers")
    message = StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="assistant", content="Hers"
    )
    about = ChatMessage.objects.create(
        user=alice, conversation=passage, role="assistant", content="Hers"
    )
    return {
        "chats": {"conversation_id": chat.pk, "message_id": message.pk},
        "passages": {"conversation_id": passage.pk, "message_id": about.pk},
        "auth": {"pk": create_token(alice)[0].pk},
        "memory": {"import_id": import_of(alice)},
    }


def import_of(user: User) -> int:
    """The id of a new import; any number on the oldest schema."""
    if not has_imports():
        return 1
    new = MemoryImport(user=user, format="claude", status="done")
    new.save(force_insert=True)
    return int(new.pk)


def fill(route: str, ids: dict[str, int]) -> str:
    """The route with ids in it."""
    for name, pk in ids.items():
        route = route.replace(f"<int:{name}>", str(pk))
    assert "<" not in route
    return f"/{route}"


def state() -> list[Any]:
    """All rows that could be alice's."""
    tables = (StandaloneChat, Passage, StandaloneChatMessage, ChatMessage)
    rows: list[Any] = [
        list(table._default_manager.order_by("pk").values(*names))
        for table in tables
        # The oldest schema has no column for the embedding.
        for names in [
            [field.attname for field in table._meta.concrete_fields if field.name != "embedding"]
        ]
    ]
    return [*rows, ApiToken.objects.count(), has_imports() and MemoryImport.objects.count()]


@pytest.mark.parametrize("route", WITH_OBJECT)
def test_another_users_object_looks_like_a_missing_one(
    route: str, hers: dict[str, dict[str, int]], bob: User, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(bob)
    ids = hers[route.split("/")[1]]
    before = state()
    for method in METHODS:
        answers = [
            getattr(client, method)(fill(route, of), BODY, format="json")
            for of in (ids, dict.fromkeys(ids, MISSING))
        ]
        assert {answer.status_code for answer in answers} <= {404, 405}, f"{method} {route}"
        assert answers[0].content == answers[1].content
        assert dict(answers[0].headers) == dict(answers[1].headers)
    assert state() == before
    assert fake_openai.requests == []


@pytest.mark.parametrize("route", sorted(set(api_routes()) - OPEN))
def test_without_a_token_every_route_is_401(route: str, hers: dict[str, dict[str, int]]) -> None:
    kind = route.split("/")[1]
    for of in (hers.get(kind, {}), dict.fromkeys(hers.get(kind, {}), MISSING)):
        answer = APIClient().get(fill(route, of)) if "<" in route else APIClient().get(f"/{route}")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_lists_show_only_the_users_own_rows(
    hers: dict[str, dict[str, int]], bob: User, api: Api
) -> None:
    own = StandaloneChat.objects.create(user=bob)
    client = api(bob)
    assert [chat["id"] for chat in client.get("/api/chats/").data["results"]] == [own.pk]
    assert client.get("/api/passages/").data["results"] == []
    assert len(client.get("/api/auth/tokens/").data["results"]) == 1


def test_owners_ids_and_roles_in_a_body_are_ignored(
    hers: dict[str, dict[str, int]], alice: User, bob: User, api: Api, fake_openai: FakeOpenAI
) -> None:
    client = api(bob)
    smuggled = {
        "user": alice.pk,
        "user_id": alice.pk,
        "role": "assistant",
        "id": 1,
        "conversation": 1,
    }
    chat = client.post("/api/chats/", {"title": "His"} | smuggled, format="json").data["id"]
    assert StandaloneChat.objects.get(pk=chat).user == bob
    client.post(f"/api/chats/{chat}/messages/", {"content": "Hello"} | smuggled, format="json")
    message = StandaloneChatMessage.objects.get(content="Hello")
    assert (message.user, message.role, message.conversation_id) == (bob, "user", chat)


@pytest.mark.parametrize("route", WITH_OBJECT)
def test_ids_beyond_the_databases_range_are_not_looked_for(
    route: str, hers: dict[str, dict[str, int]], alice: User, api: Api
) -> None:
    # As a numeric the id would be compared with each row of the table.
    ids = hers[route.split("/")[1]]
    names = [name for name in ids if f":{name}>" in route]
    client = api(alice)
    for name, huge, method in product(names, (2**63, 10**30), METHODS):
        with CaptureQueriesContext(connection) as queries:
            response = getattr(client, method)(fill(route, ids | {name: huge}), BODY, format="json")
        assert response.status_code in (404, 405), (name, method)
        assert [query["sql"] for query in queries if str(huge) in query["sql"]] == []
