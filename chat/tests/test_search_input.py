"""Any query string is a search, or a 400 that names the wrong field: never a 500."""

import http.client
from collections.abc import Callable
from urllib.parse import quote, urlencode

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.auth.api_tokens import create_token
from chat.memory.embed import embed_in_background
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
SEARCH = "/api/memory/search/"
FACT = "My dog is called Biscuit and he loves cheese."
# Query strings, each with the field that the answer must name.
UNUSABLE = {
    "": "q",
    "q=": "q",
    "q=%20%0A%09": "q",
    "q[]=dog": "q",
    "q=dog%00": "q",
    "q=%00": "q",
    f"q={'x' * 32_001}": "q",
    "q=dog&limit=0": "limit",
    "q=dog&limit=-1": "limit",
    "q=dog&limit=51": "limit",
    "q=dog&limit=abc": "limit",
    "q=dog&limit=1.5": "limit",
    "q=dog&limit=1e1": "limit",
    "q=dog&limit=5%00": "limit",
    f"q=dog&limit={'9' * 5_000}": "limit",
    "q=dog&since=soon": "since",
    "q=dog&since=2024-02-30": "since",
    "q=dog&until=2024-13-45T00:00:00Z": "until",
    "q=dog&until=1714730400": "until",
    "q=dog&since=2024-01-01T00:00:00%2B99:99": "since",
    "q=dog&since=0001-01-01T00:00:00%2B14:00": "since",  # no time in UTC
    "q=dog&until=9999-12-31T23:59:59-14:00": "until",
    "q=dog&role=system": "role",
    "q=dog&role=user%00": "role",
    "q=dog&kind=letter": "kind",
}
ODD = {
    "stop words": "the of and to be",
    "emoji": "🦊 👩‍👩‍👧 🐕‍🦺",
    "quotes": "\"unclosed 'and` \\",
    "operators": "a & b | !c <-> (d:*",
    "operators alone": "& | ! <-> :* ()",
    "SQL": "'; DROP TABLE message_memories; --",
    "placeholders": "%s %(user)s {vector} {0} $1 \\1",
    "10,000 characters": "x" * 10_000,
    "10,000 words": "x " * 10_000,
    "no space in 10,000 characters": "東京" * 5_000,
    "nothing to see": "\u200b\u00ad\ufeff\u2060",
    "both directions": "\u202edog\u202c مرحبا שלום",
    "accents by the dozen": "e" + "\u0301" * 500,
    "no characters": "\uffff\U0010ffff\x01\x7f\x85",
}
# Bytes that are no text: half a surrogate pair, half a character, a % without its number.
BROKEN = ("%ED%A0%80", "%ED%B0%80dog", "%F0%9F", "%FF%FE", "%", "%zz", "+%C0%80")


@pytest.fixture
def fact(alice: User, remembering: FakeOpenAI) -> StandaloneChatMessage:
    """A message of alice's, embedded."""
    chat = StandaloneChat.objects.create(user=alice)
    message = StandaloneChatMessage(user=alice, conversation=chat, role="user", content=FACT)
    message.save()
    embed_in_background(message).result(PATIENCE_S)
    return message


@pytest.fixture
def client(alice: User, api: Api) -> APIClient:
    """Alice's."""
    return api(alice)


@pytest.mark.parametrize("query", UNUSABLE, ids=lambda query: query[:40])
def test_an_unusable_search_is_a_400_that_names_the_field(query: str, client: APIClient) -> None:
    response = client.get(f"{SEARCH}?{query}")
    assert (response.status_code, response.json()["code"]) == (400, "invalid")
    assert set(response.json()) == {"detail", "code", UNUSABLE[query]}


@pytest.mark.parametrize("mode", ["hybrid", "lexical"])
def test_any_other_text_is_a_normal_search(
    mode: str, client: APIClient, fact: StandaloneChatMessage, settings: Settings
) -> None:
    settings.EMBEDDINGS = "openai" if mode == "hybrid" else "none"
    for name, q in ODD.items():
        for query in (urlencode({"q": q}), urlencode({"q": f"{q} Biscuit", "limit": 50})):
            response = client.get(f"{SEARCH}?{query}")
            assert (response.status_code, response.json()["mode"]) == (200, mode), name
            assert {memory["message_id"] for memory in response.json()["results"]} <= {fact.pk}, (
                name
            )
    assert StandaloneChat.objects.count() == 1


@pytest.mark.parametrize("name", ["quotes", "operators", "SQL", "both directions"])
def test_a_word_among_odd_characters_is_found(
    name: str, client: APIClient, fact: StandaloneChatMessage, settings: Settings
) -> None:
    settings.EMBEDDINGS = "none"
    response = client.get(f"{SEARCH}?{urlencode({'q': f'{ODD[name]} biscuits'})}")
    assert [memory["message_id"] for memory in response.json()["results"]] == [fact.pk]


@pytest.mark.parametrize(
    ("since", "until", "is_found"),
    [
        ("2025-01-01T00:00:00Z", "2024-01-01T00:00:00Z", False),
        ("9999-12-31T23:59:59Z", "0001-01-01T00:00:00Z", False),
        ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", True),
        ("2024-01-01", "2999-01-01T00:00", True),
        ("", "", True),
    ],
)
def test_an_impossible_period_contains_nothing(
    since: str, until: str, is_found: bool, client: APIClient, fact: StandaloneChatMessage
) -> None:
    response = client.get(SEARCH, {"q": "dog", "since": since, "until": until})
    assert response.status_code == 200
    assert [memory["message_id"] for memory in response.json()["results"]] == (
        [fact.pk] if is_found else []
    )


def test_bytes_that_are_no_text_are_a_normal_search(
    alice: User, fact: StandaloneChatMessage, server: Callable[..., Server]
) -> None:
    running = server(EMBEDDINGS="none")
    headers = {"Authorization": f"Token {create_token(alice)[1]}"}
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=PATIENCE_S)
    for q in (*BROKEN, *(quote(text[:1_000]) for text in ODD.values())):
        connection.request("GET", f"{SEARCH}?q={q}+Biscuit", headers=headers)
        response = connection.getresponse()
        assert (response.status, b'"results":[{' in response.read()) == (200, True), q
    connection.close()
    assert "ERROR" not in running.log
