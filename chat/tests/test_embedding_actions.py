"""The admin's actions on messages: they queue, return, and embed in the background."""

import time
from typing import Any

import pytest
from django.contrib.auth.models import Permission, User
from django.test import Client
from pytest_django import Settings

from chat.memory import embed_chosen
from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.admin_support import address, client_of
from fake_openai import FakeOpenAI, Hang
from retrieval import audit, runtime
from retrieval.models import MessageMemory
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
URL = address("standalonechatmessage")


@pytest.fixture
def ids(alice: User) -> list[int]:
    """Three pending messages."""
    chat = StandaloneChat.objects.create(user=alice)
    texts = ("one", "two", "a bad one")
    return [chat.messages.create(user=alice, role="user", content=text).pk for text in texts]


def act(client: Client, action: str, ids: list[int], **fields: str) -> str:
    """Run an action on these messages; the page that follows."""
    data: dict[str, Any] = {"action": action, "_selected_action": ids, **fields}
    return client.post(URL, data, follow=True).content.decode()


def states(client: Client) -> dict[int, str]:
    rows = client.get(URL).context["cl"].result_list
    return {message.pk: message.state for message in rows}


def set_aside(ids: list[int]) -> None:
    MessageMemory.objects.filter(pk__in=[pk * 2 for pk in ids]).update(embedding_error="400")


def test_pending_messages_are_embedded_in_one_call(
    operator: Client, ids: list[int], remembering: FakeOpenAI
) -> None:
    set_aside(ids[2:])
    page = act(operator, "embed_now", ids)
    assert "those of the 3 selected messages that are pending are embedded now" in page
    finish_embedding_jobs()
    assert states(operator) == {ids[0]: "embedded", ids[1]: "embedded", ids[2]: "failed"}
    assert len(remembering.embeddings.requests) == 1
    act(operator, "embed_now", ids)
    finish_embedding_jobs()
    assert len(remembering.embeddings.requests) == 1
    lines = [(line.who, line.what) for line in audit.lines() if "embed" in line.what]
    assert lines == [("operator", "embed now: 3 standalone chat messages")] * 2


def test_failed_messages_are_tried_again_and_a_refused_one_fails_again(
    operator: Client, ids: list[int], remembering: FakeOpenAI
) -> None:
    set_aside(ids)
    remembering.embeddings.refuse_text("bad")
    act(operator, "retry_failed", ids)
    finish_embedding_jobs()
    assert states(operator) == {ids[0]: "embedded", ids[1]: "embedded", ids[2]: "failed"}
    error = MessageMemory.objects.get(pk=ids[2] * 2).embedding_error
    assert error
    assert error != "400"


def test_the_request_does_not_wait_for_the_service(
    operator: Client, ids: list[int], remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 600
    remembering.embeddings.default = Hang()
    set_aside(ids)
    assert "are embedded now" in act(operator, "retry_failed", ids)
    assert embed_chosen._Process.last
    assert not embed_chosen._Process.last.done()
    wait_for_a_request(remembering)
    runtime.reset()  # ends the call
    finish_embedding_jobs()
    assert set(states(operator).values()) == {"pending"}  # the backfill takes them up


def wait_for_a_request(fake: FakeOpenAI) -> None:
    until = time.monotonic() + PATIENCE_S
    while not fake.embeddings.requests:
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_service_that_refuses_everything_sets_nothing_aside(
    operator: Client, ids: list[int], remembering: FakeOpenAI
) -> None:
    for part in ("one", "two", "bad"):
        remembering.embeddings.refuse_text(part)
    act(operator, "embed_now", ids)
    finish_embedding_jobs()
    assert set(states(operator).values()) == {"pending"}


def test_all_that_a_list_has_selected_can_be_chosen(
    operator: Client, ids: list[int], remembering: FakeOpenAI
) -> None:
    act(operator, "embed_now", ids[:1], select_across="1")
    finish_embedding_jobs()
    assert set(states(operator).values()) == {"embedded"}


def test_without_a_model_the_operator_is_told(
    operator: Client, ids: list[int], settings: Settings
) -> None:
    settings.OPENAI_API_KEY = ""
    page = act(operator, "embed_now", ids)
    assert "Nothing was embedded: no embedding model is configured." in page
    assert not any("embed" in line.what for line in audit.lines())


def test_who_may_only_view_messages_has_no_action(ids: list[int], remembering: FakeOpenAI) -> None:
    staff = User.objects.create(username="staff", is_staff=True)
    staff.user_permissions.set(Permission.objects.filter(codename__startswith="view_"))
    client = client_of(staff)
    assert "Embed now" not in client.get(URL).content.decode()
    act(client, "embed_now", ids)
    finish_embedding_jobs()
    assert set(states(client).values()) == {"pending"}


def test_actions_delete_nothing(operator: Client, ids: list[int]) -> None:
    act(operator, "delete_selected", ids, post="yes")
    assert StandaloneChatMessage.objects.count() == 3
