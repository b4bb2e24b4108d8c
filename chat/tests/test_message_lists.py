"""The admin's lists of messages find what matches, page by page, and read little of big tables."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import product
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.test import Client

from chat.message_lists import find as finding
from chat.message_lists import states
from chat.message_lists.find import Position, Query, find
from chat.models import (
    ChatMessage,
    MemorySwitch,
    Message,
    Passage,
    StandaloneChat,
    StandaloneChatMessage,
)
from chat.tests.admin_support import address
from retrieval.models import EmbeddingModel, MessageMemory

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
NOON = datetime(2026, 5, 3, 12, tzinfo=UTC)


@pytest.fixture
def models() -> tuple[int, int]:
    """An earlier model and the current one."""
    old = EmbeddingModel.objects.create(name="an earlier model", current=False)
    return old.pk, EmbeddingModel.objects.create(name="a model", current=True).pk


@dataclass(frozen=True)
class Sample:
    """A message, the state of its embedding, and the model of its vector."""

    message: Message
    state: str
    model: int | None = None


@pytest.fixture
def messages(alice: User, bob: User, models: tuple[int, int]) -> list[Sample]:
    """Some of every kind, in both tables; those with higher ids are older, as after an import."""
    rows: list[Sample] = []
    MemorySwitch.objects.create(user=bob, enabled=False)
    for user, memory in ((alice, True), (alice, False), (bob, True)):
        chat = StandaloneChat.objects.create(user=user, memory=memory)
        passage = Passage.objects.create(user=user, reference="Ruth 1", text="", memory=memory)
        kinds = product((chat, passage), ("user", "assistant"), (None, *models), (None, "400"))
        for number, (conversation, role, model, refusal) in enumerate(kinds):
            at = NOON - timedelta(hours=number)
            message = conversation.messages.create(
                user=user, role=role, content=f"message {number}", created_at=at
            )
            memory_row = MessageMemory.objects.filter(pk=message.memory_table.pack_ref(message.pk))
            memory_row.update(model_id=model, embedding_error=refusal)
            its_state = state_of(model, refusal, models) if memory and user != bob else states.OFF
            rows.append(Sample(message, its_state, model))
        for status in ("failed", "interrupted", "streaming"):
            answer = chat.messages.create(user=user, role="assistant", content="", status=status)
            rows.append(Sample(answer, states.OFF))
    chat = StandaloneChat.objects.create(user=alice)
    copy = chat.messages.create(user=alice, role="user", content="copy", context=[{"copy": True}])
    return [*rows, Sample(copy, states.OFF), Sample(tainted_answer(chat), states.OFF)]


def tainted_answer(chat: StandaloneChat) -> Message:
    """An answer whose question was deleted: it is never embedded."""
    question = chat.messages.create(user=chat.user, role="user", content="a question")
    answer: Message = chat.messages.create(
        user=chat.user, role="assistant", content="an answer", reply_to=question.pk
    )
    question.delete()
    answer.refresh_from_db()
    return answer


def state_of(model: int | None, refusal: str | None, models: tuple[int, int]) -> str:
    if model == models[1]:
        return states.EMBEDDED
    return states.FAILED if refusal else states.PENDING


def all_pages(model: type[Message], query: dict[str, Any]) -> list[int]:
    """The ids of a list and of all its older pages."""
    ids: list[int] = []
    before: Position | None = None
    for _ in range(200):
        page = find(model, Query(**query, before=before))
        ids += page.ids
        if page.older is None:
            return ids
        before = Position.parse(str(page.older))
    raise AssertionError("the pages have no end")


def test_every_combination_finds_what_matches_page_by_page(
    messages: list[Sample], alice: User, models: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MAX_LOOKED_AT", 12)
    time = {"since": NOON - timedelta(hours=9), "until": NOON - timedelta(hours=2)}
    users = {"users": [alice.pk]}
    a_row = {"users": [], "pk": messages[-1].message.pk}
    choices = product(
        (None, "assistant"),
        (None, "complete", "failed"),
        (None, *states.STATES),
        (None, models[0]),
        ({}, time, users, time | users, a_row),
    )
    for number, (role, status, state, model, others) in enumerate(choices):
        if number % 7:  # all would take some seconds; 7 divides no stride of the product
            continue
        query = {"role": role, "status": status, "state": state, "model": model, **others}
        for table in (StandaloneChatMessage, ChatMessage):
            expected = {
                sample.message.pk
                for sample in messages
                if type(sample.message) is table and matches(sample, query)
            }
            ids = all_pages(table, query)
            assert len(ids) == len(set(ids)), query
            assert set(ids) == expected, query


def matches(sample: Sample, query: dict[str, Any]) -> bool:
    """The same, said another way."""
    message = sample.message
    return (
        query["role"] in (None, message.role)
        and query["status"] in (None, message.status)
        and query["state"] in (None, sample.state)
        and query["model"] in (None, sample.model)
        and ("since" not in query or query["since"] <= message.created_at < query["until"])
        and (
            "users" not in query
            or message.user_id in query["users"]
            or message.pk == query.get("pk")
        )
    )


def test_a_list_says_where_its_count_stops_and_goes_on(
    operator: Client, alice: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(finding, "MAX_LOOKED_AT", 3)
    chat = StandaloneChat.objects.create(user=alice)
    texts = [f"message {number}" for number in range(5)]
    for text in texts:
        chat.messages.create(user=alice, role="user", content=text)
    url = address("standalonechatmessage")
    page = operator.get(url, {"role": "user"})
    assert shown(page) == texts[:1:-1]
    assert "among the 3 latest candidates; counting stops there" in page.content.decode()
    older = page.context["cl"].older_query_string
    assert "role=user" in older
    page = operator.get(url + older)
    assert shown(page) == texts[1::-1]
    assert "counting stops" not in page.content.decode()
    assert "before" not in page.context["cl"].get_query_string({"role": "assistant"})


def shown(page: Any) -> list[str]:
    return [message.excerpt for message in page.context["cl"].result_list]


def test_columns_show_the_state_and_the_model(operator: Client, messages: list[Sample]) -> None:
    for table in (StandaloneChatMessage, ChatMessage):
        page = operator.get(address(str(table._meta.model_name)))
        rows = {message.pk: message for message in page.context["cl"].result_list}
        samples = [sample for sample in messages if type(sample.message) is table]
        expected = {sample.message.pk: sample.state for sample in samples}
        assert {pk: row.state for pk, row in rows.items()} == expected
        assert {row.model_name for row in rows.values()} == {None, "a model", "an earlier model"}


@pytest.mark.parametrize(
    "parameters",
    [
        "role=nobody",
        "state=x",
        "status=x",
        "since=x",
        "until=2026-13-01",
        "until=2026-05-03T10:00%2B16:00",
        "before=x",
        "before=1@2026-05-03T10:00%2B16:00",
    ],
)
def test_a_filter_that_cannot_be_is_refused(parameters: str, operator: Client) -> None:
    response = operator.get(f"{address('chatmessage')}?{parameters}")
    assert response.status_code == 302
    assert response["Location"].endswith("?e=1")


def test_a_search_for_a_number_that_is_no_id_finds_nothing(
    operator: Client, messages: list[Sample]
) -> None:
    for term in ("9" * 18, "9" * 19, "9" * 5_000):
        page = operator.get(address("standalonechatmessage"), {"q": term})
        assert (page.status_code, list(page.context["cl"].result_list)) == (200, [])


@pytest.mark.parametrize("lookup", ["content__contains=x", "user__password__startswith=p", "o=1"])
def test_no_other_lookup_is_allowed(lookup: str, operator: Client) -> None:
    response = operator.get(f"{address('chatmessage')}?{lookup}")
    assert response.status_code == (200 if lookup == "o=1" else 400)
