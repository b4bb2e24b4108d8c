"""Another user's object is, byte for byte, an object that is not there: on every address, by every method."""

from collections.abc import Iterator
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.urls import URLPattern, URLResolver, get_resolver
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token
from chat.models import ApiToken, ChatMessage, Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import FakeOpenAI

pytestmark = pytest.mark.django_db(transaction=True)
METHODS = ("get", "post", "patch", "put", "delete")
MISSING = 999_999_999
OPEN = {"api/auth/token/", "api/schema/", "api/docs/"}  # without an object of anybody's
BODY = {
    "content": "Changed",
    "title": "Changed",
    "reference": "Changed",
    "text": "Changed",
    "memory": False,
}


def api_routes(patterns: list[Any] | None = None, prefix: str = "") -> Iterator[str]:
    """Every address under /api/, as its pattern."""
    for one in get_resolver().url_patterns if patterns is None else patterns:
        if isinstance(one, URLResolver):
            yield from api_routes(one.url_patterns, prefix + str(one.pattern))
        elif isinstance(one, URLPattern) and (prefix + str(one.pattern)).startswith("api/"):
            yield prefix + str(one.pattern)


WITH_OBJECT = sorted(route for route in api_routes() if "<" in route)


@pytest.fixture
def hers(alice: User) -> dict[str, dict[str, int]]:
    """Ids of alice's objects by the kind of address and by the name in it."""
    chat = StandaloneChat.objects.create(user=alice, title="Hers")
    passage = Passage.objects.create(user=alice, reference="Hers", text="Hers")
    said = StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="assistant", content="Hers"
    )
    about = ChatMessage.objects.create(
        user=alice, conversation=passage, role="assistant", content="Hers"
    )
    return {
        "chats": {"conversation_id": chat.pk, "message_id": said.pk},
        "passages": {"conversation_id": passage.pk, "message_id": about.pk},
        "auth": {"pk": create_token(alice)[0].pk},
    }


def fill(route: str, ids: dict[str, int]) -> str:
    """The address with ids in it."""
    for name, pk in ids.items():
        route = route.replace(f"<int:{name}>", str(pk))
    assert "<" not in route
    return f"/{route}"


def state() -> list[Any]:
    """All that is kept of alice's."""
    tables = (StandaloneChat, Passage, StandaloneChatMessage, ChatMessage)
    rows: list[Any] = [
        list(table._default_manager.order_by("pk").values(*names))
        for table in tables
        # Its embedding is not there on the oldest schema.
        for names in [
            [field.attname for field in table._meta.concrete_fields if field.name != "embedding"]
        ]
    ]
    return [*rows, ApiToken.objects.count()]


@pytest.mark.parametrize("route", WITH_OBJECT)
def test_what_belongs_to_another_user_is_not_there(
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
def test_without_a_token_nothing_is_told(route: str, hers: dict[str, dict[str, int]]) -> None:
    kind = route.split("/")[1]
    for of in (hers.get(kind, {}), dict.fromkeys(hers.get(kind, {}), MISSING)):
        answer = APIClient().get(fill(route, of)) if "<" in route else APIClient().get(f"/{route}")
        assert (answer.status_code, answer.json()["code"]) == (401, "not_authenticated")


def test_lists_show_only_ones_own(hers: dict[str, dict[str, int]], bob: User, api: Api) -> None:
    own = StandaloneChat.objects.create(user=bob)
    client = api(bob)
    assert [one["id"] for one in client.get("/api/chats/").data["results"]] == [own.pk]
    assert client.get("/api/passages/").data["results"] == []
    assert len(client.get("/api/auth/tokens/").data["results"]) == 1


def test_owners_ids_and_roles_in_a_body_are_not_obeyed(
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
    said = StandaloneChatMessage.objects.get(content="Hello")
    assert (said.user, said.role, said.conversation_id) == (bob, "user", chat)


def test_ids_beyond_the_databases_range_are_not_there(alice: User, api: Api) -> None:
    for pk in (2**63, 10**30):
        assert api(alice).get(f"/api/chats/{pk}/").status_code == 404
        assert api(alice).get(f"/api/chats/{pk}/messages/{pk}/").status_code == 404
