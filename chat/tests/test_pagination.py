"""Lists page by page, in both directions."""

from base64 import b64encode
from collections.abc import Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from chat.models import ApiToken, Passage, StandaloneChat, StandaloneChatMessage
from chat.tests.plan_support import reads_of
from chat.tests.support import Api
from retrieval.queries import execute

pytestmark = pytest.mark.django_db
NOON = datetime(2024, 3, 1, 12, tzinfo=UTC)


def walk(client: APIClient, address: str, direction: str = "next") -> list[dict[str, Any]]:
    """The pages from an address on, until the link in this direction is null."""
    pages = [client.get(address).json()]
    while link := pages[-1][direction]:
        pages.append(client.get(link).json())
        assert len(pages) < 100, "a list without an end"
    return pages


def ids(pages: list[dict[str, Any]]) -> list[int]:
    """The ids of all rows, in the pages' order."""
    return [row["id"] for page in pages for row in page["results"]]


def messages_of_one_time(
    user: User, number: int, chat: StandaloneChat | None = None
) -> StandaloneChat:
    """The chat, or a new one, with so many messages of the same time."""
    chat = chat or StandaloneChat.objects.create(user=user)
    rows = (
        StandaloneChatMessage(
            user=user, conversation=chat, role="user", content="", created_at=NOON
        )
        for _ in range(number)
    )
    StandaloneChatMessage.objects.bulk_create(rows)
    return chat


@pytest.mark.newest_schema
def test_a_list_of_one_time_ends_in_both_directions(alice: User, api: Api) -> None:
    chat = messages_of_one_time(alice, 1_500)
    client = api(alice)
    forward = walk(client, f"/api/chats/{chat.pk}/messages/?page_size=100")
    expected = list(chat.messages.order_by("id").values_list("id", flat=True))
    assert (len(forward), ids(forward)) == (15, expected)
    assert forward[0]["previous"] is None
    backward = walk(client, forward[-2]["next"], "previous")[::-1]
    assert [page["results"] for page in backward] == [page["results"] for page in forward]
    assert walk(client, backward[0]["next"])[-1]["results"] == forward[-1]["results"]


def tokens(user: User, at: datetime) -> Any:
    digest = bytes(32 + ApiToken.objects.count())
    return ApiToken.objects.create(user=user, digest=digest, created_at=at)


def chats(user: User, at: datetime) -> Any:
    return StandaloneChat.objects.create(user=user, created_at=at)


def passages(user: User, at: datetime) -> Any:
    return Passage.objects.create(user=user, reference="John 3:16", text="", created_at=at)


@pytest.mark.parametrize(
    ("address", "create"), [("auth/tokens", tokens), ("chats", chats), ("passages", passages)]
)
def test_lists_newest_first_give_rows_of_equal_times_once(
    alice: User, api: Api, address: str, create: Callable[[User, datetime], Any]
) -> None:
    client = api(alice)
    ApiToken.objects.update(created_at=NOON.replace(year=2023))
    times = [NOON, NOON, NOON.replace(hour=11), NOON, NOON.replace(hour=11)]
    rows = [create(alice, at) for at in times]
    newest_first = sorted(rows, key=lambda row: (row.created_at, row.pk), reverse=True)
    forward = walk(client, f"/api/{address}/?page_size=2")
    assert ids(forward)[:5] == [row.pk for row in newest_first]
    backward = walk(client, forward[-2]["next"], "previous")
    assert ids(backward[::-1]) == ids(forward)


def test_rows_added_and_deleted_meanwhile_move_no_others(alice: User, api: Api) -> None:
    client = api(alice)
    first, second, third, fourth = (chats(alice, NOON) for _ in range(4))
    page = client.get("/api/chats/?page_size=2").json()
    assert ids([page]) == [fourth.pk, third.pk]
    chats(alice, NOON)
    third.delete()
    rest = client.get(page["next"]).json()
    assert (ids([rest]), rest["next"]) == ([second.pk, first.pk], None)
    StandaloneChat.objects.filter(pk__in=[first.pk, second.pk]).delete()
    empty = client.get(page["next"]).json()
    assert (empty["results"], empty["next"]) == ([], None)
    assert ids([client.get(empty["previous"]).json()])[-1] == fourth.pk


@pytest.mark.newest_schema
def test_messages_from_the_newest_page_lead_back_to_the_first(alice: User, api: Api) -> None:
    client = api(alice)
    chat = messages_of_one_time(alice, 5)
    forward = ids(walk(client, f"/api/chats/{chat.pk}/messages/?page_size=2"))
    newest = client.get(f"/api/chats/{chat.pk}/messages/?page_size=2&newest=1").json()
    assert (ids([newest]), newest["next"]) == (forward[-2:], None)
    backward = walk(client, f"/api/chats/{chat.pk}/messages/?page_size=2&newest=1", "previous")
    assert ids(backward[::-1]) == forward


def encoded(fields: str) -> str:
    return b64encode(fields.encode()).decode()


@pytest.mark.parametrize(
    "cursor",
    [
        "",
        "x",
        "%00",
        "🐈",
        encoded("p=yesterday"),
        encoded("p=yesterday&i=1&r=0"),
        encoded("p=2024-02-29T12:00:00&i=1&r=0"),
        encoded("p=2024-02-30T12:00:00%2B00:00&i=1&r=0"),
        encoded("p=2024-02-29T12:00:00%2B00:00&i=9223372036854775808&r=0"),
        encoded("p=2024-02-29T12:00:00%2B00:00&i=-1&r=0"),
        encoded("p=2024-02-29T12:00:00%2B00:00&i=one&r=0"),
        encoded("p=2024-02-29T12:00:00%2B16:00&i=1&r=0"),
        encoded("p=2024-02-29T12:00:00-23:59&i=1&r=0"),
        encoded("p=%00&i=1&r=0"),
        encoded("o=-1"),
        encoded("r=x"),
    ],
)
def test_a_cursor_that_cannot_be_used_is_a_404(alice: User, api: Api, cursor: str) -> None:
    for address in ("chats", "passages", "auth/tokens"):
        answer = api(alice).get(f"/api/{address}/", {"cursor": cursor})
        assert (answer.status_code, answer.json()["code"]) == (404, "not_found"), answer.content


def test_the_earliest_and_the_latest_time_are_usable_cursors(alice: User, api: Api) -> None:
    chat = chats(alice, NOON)
    for at, rows in [
        ("0001-01-01T00:00:00+14:00", []),
        ("9999-12-31T23:59:59.999999-12:00", [chat.pk]),
    ]:
        fields = f"p={at.replace('+', '%2B')}&i=1&r=0"
        page = api(alice).get("/api/chats/", {"cursor": encoded(fields)}).json()
        assert ids([page]) == rows


@pytest.mark.newest_schema
def test_a_page_in_the_middle_reads_its_own_rows_only(alice: User, bob: User, api: Api) -> None:
    client = api(alice)
    chat = messages_of_one_time(alice, 2)
    messages_of_one_time(bob, 3_000)  # between two pages of alice's, by time and id
    messages_of_one_time(alice, 30, chat)
    execute("ANALYZE standalone_chat_messages")
    page = client.get(f"/api/chats/{chat.pk}/messages/?page_size=1").json()
    table = "standalone_chat_messages"
    reads = reads_of(partial(client.get, page["next"]), tables=[table])
    assert reads.scans[table] == 0, reads
    assert 0 < reads.of(table) <= 20, reads
