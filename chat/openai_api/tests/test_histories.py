"""Random histories: what is stored equals what the client shows last."""

from itertools import count
from typing import Any

import pytest
from django.contrib.auth.models import User
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from chat.models import StandaloneChatMessage
from chat.openai_api.tests.simulated_client import SimulatedClient
from chat.openai_api.tests.support import Bearer, Message
from fake_openai import Answer, FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
QUESTIONS = st.sampled_from(["yes", "go on", "What is it?", "Two\nlines", "Größe 你好 \\x"])
STEPS = st.one_of(
    st.tuples(st.just("say"), QUESTIONS),
    st.tuples(st.just("say"), QUESTIONS),
    st.tuples(st.just("edit"), st.integers(0, 5), QUESTIONS),
    st.tuples(st.just("regenerate")),
    st.tuples(st.just("stop"), st.integers(0, 12)),
    st.tuples(st.just("ask_for_title")),
)
numbers = count()


def run(steps: list[tuple[Any, ...]], client: SimulatedClient) -> None:
    for name, *values in steps:
        getattr(client, name)(*values)
        client.check()
    assert not StandaloneChatMessage.objects.filter(content__contains="### Task").exists()


def client_of(bearer: Bearer, fake: FakeOpenAI, own_id: str) -> SimulatedClient:
    """A client in this process; each answer is another one."""

    def ask(messages: list[Message], headers: dict[str, str]) -> tuple[str, int | None]:
        fake.chat.script(Answer(f"Answer {next(numbers)}, in some words."))
        reply = bearer.ask(*messages, headers=headers)
        assert reply.status == 200, reply.body
        return reply.text, reply.chat

    return SimulatedClient(ask, own_id)


@pytest.mark.parametrize("has_id", [True, False])
@given(st.lists(STEPS, min_size=2, max_size=8))
@settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    phases=[Phase.generate],
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_stored_is_what_the_client_shows(
    has_id: bool,
    unlimited: None,
    fake_openai: FakeOpenAI,
    steps: list[tuple[Any, ...]],
) -> None:
    number = next(numbers)
    own_user = User.objects.create(username=f"user {number}")
    run(steps, client_of(Bearer(own_user), fake_openai, f"own {number}" if has_id else ""))


@pytest.mark.soak
@pytest.mark.parametrize("has_id", [True, False])
@given(st.lists(STEPS, min_size=4, max_size=25))
@settings(
    max_examples=100,
    deadline=None,
    database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
def test_what_is_stored_is_what_the_client_shows_in_long_histories(
    has_id: bool, unlimited: None, fake_openai: FakeOpenAI, steps: list[tuple[Any, ...]]
) -> None:
    number = next(numbers)
    own_user = User.objects.create(username=f"user {number}")
    run(steps, client_of(Bearer(own_user), fake_openai, f"own {number}" if has_id else ""))
