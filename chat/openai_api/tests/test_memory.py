"""What the model is given: the client's messages, and memories of other conversations alone."""

from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from pytest_django import Settings

from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat, StandaloneChatMessage
from chat.openai_api.tests.support import Bearer, assistant, stored, texts, user
from fake_openai import Answer, FakeOpenAI, NoSystem, Unsupported, Window
from retrieval import runtime

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FACT = "My zebra Kornblume lives in Trieste"
QUESTION = "Where does my zebra live?"


def test_a_fact_is_given_to_an_answer_in_another_conversation(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    bearer.ask(user(FACT))
    finish_embedding_jobs()
    bearer.ask(user(QUESTION))
    last = remembering.chat.requests[-1].messages[-1]["content"]
    assert last.startswith("===== memories ")
    assert FACT in last
    assert last.endswith(QUESTION)


def test_another_users_fact_is_never_given(
    bearer: Bearer, bob: User, remembering: FakeOpenAI
) -> None:
    Bearer(bob).ask(user(FACT))
    finish_embedding_jobs()
    bearer.ask(user(QUESTION))
    assert "Kornblume" not in remembering.chat.requests[-1].prompt_text


@pytest.mark.parametrize("form", ["same chat", "unseen history", "edited", "other line ends"])
def test_what_the_client_sends_is_not_recalled(
    form: str, bearer: Bearer, remembering: FakeOpenAI
) -> None:
    """The canary is in the prompt once, as the client sent it. The title does not hold it."""
    remembering.chat.script(Answer("A fine name."))
    bearer.ask(user(f"Listen:\n{FACT}"))
    finish_embedding_jobs()
    fact = f"Listen:\r\n{FACT} " if form == "other line ends" else f"Listen:\n{FACT}"
    messages: list[Any] = [user(fact), assistant("A fine name.")]
    if form == "unseen history":
        messages = [user("Hello"), assistant("Hello."), user(fact), assistant("I see.")]
    if form == "edited":
        messages[1] = assistant("I see.")
    bearer.ask(*messages, user(QUESTION))
    prompt = remembering.chat.requests[-1].messages
    assert sum("Kornblume" in str(part["content"]) for part in prompt) == 1
    assert "Kornblume" not in prompt[-1]["content"]


def test_what_the_prompt_has_no_room_for_is_not_recalled_either(
    bearer: Bearer, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_CONTEXT_TOKENS, settings.LLM_MAX_TOKENS = 1024, 100
    bearer.ask(user(FACT))
    finish_embedding_jobs()
    long = [user("Tell me more"), assistant("word " * 300)] * 3
    bearer.ask(user(FACT), assistant(f"You said: {FACT}"), *long, user(QUESTION))
    assert "Kornblume" not in remembering.chat.requests[-1].prompt_text


def test_the_systems_texts_are_one_message_before_verses(
    bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    developer = {"role": "developer", "content": "Answer in Latin."}
    bearer.ask({"role": "system", "content": "Be a pirate."}, developer, user("Hello"))
    system, question = fake_openai.chat.requests[-1].messages
    assert system["role"] == "system"
    assert system["content"].startswith("Be a pirate.\n\nAnswer in Latin.\n\nYou are Verse")
    assert question == user("Hello")


def test_parameters_are_passed_on_and_win(
    bearer: Bearer, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_EXTRA_BODY = {"temperature": 1, "top_p": 0.5, "max_completion_tokens": 900}
    bearer.ask(
        user("Hello"),
        temperature=0.1,
        seed=7,
        max_completion_tokens=50,
        user="alice",
        store=True,
        metadata={"a": "b"},
        n=1,
        modalities=["text"],
    )
    fields = fake_openai.chat.requests[-1].fields
    assert (fields["temperature"], fields["top_p"], fields["seed"]) == (0.1, 0.5, 7)
    assert (fields["max_tokens"], fields.get("max_completion_tokens")) == (50, None)
    assert not fields.keys() & {"user", "store", "metadata", "n", "modalities"}
    assert fields["model"] == settings.LLM_MODEL
    bearer.ask(user("Hello"), max_tokens=1_000_000)
    assert fake_openai.chat.requests[-1].fields["max_tokens"] == settings.LLM_MAX_TOKENS


@pytest.mark.parametrize(
    "behaviour", [NoSystem(), Unsupported(("stream_options",)), Unsupported(("max_tokens",))]
)
def test_a_server_that_refuses_a_form_is_asked_in_another(
    behaviour: Any, bearer: Bearer, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(*[behaviour] * 3)
    reply = bearer.ask(user("Hello"), assistant("Hi."), user("Well?"), max_tokens=5)
    assert reply.status == 200
    assert reply.body["usage"]["completion_tokens"] > 0


def test_a_prompt_that_is_too_long_is_shortened(
    bearer: Bearer, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_MAX_TOKENS = 10
    fake_openai.chat.script(*[Window(200)] * 4)
    history = [user("Tell me more"), assistant("word " * 100)] * 4
    assert bearer.ask(*history, user("And now?")).status == 200
    assert 1 < len(fake_openai.chat.requests) <= 4


@pytest.mark.soak
def test_of_a_long_history_the_start_moves_seldom(
    bearer: Bearer, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_CONTEXT_TOKENS, settings.LLM_MAX_TOKENS = 2048, 256
    messages: list[Any] = []
    for number in range(60):
        messages.append(user(f"Question {number}: what is {number} times {number + 1}?"))
        reply = bearer.ask(*messages, headers={"X-Verse-Client-Chat": "long"})
        messages.append(assistant(reply.text))
    prompts = [request.messages for request in fake_openai.chat.requests]
    same = [after[: len(before) - 1] == before[:-1] for before, after in pairwise(prompts)]
    assert sum(same) >= 53
    assert len(prompts[-1]) < len(messages)
    assert StandaloneChat.objects.count() == 1
    assert len(stored()) == 120


def test_deleting_a_message_taints_answers_that_a_client_sent_it_to(
    bearer: Bearer, remembering: FakeOpenAI
) -> None:
    fact = f"Listen:\n{FACT}"
    answers = (Answer("I see."), Answer("Kornblume is a fine name for a zebra."))
    remembering.chat.script(*answers)
    bearer.ask(user(fact))
    bearer.ask(user(fact), assistant("I see."), user("Do you like the name?"))
    finish_embedding_jobs()
    StandaloneChatMessage.objects.get(content=fact).delete()
    bearer.ask(user("What is the name of my zebra?"))
    assert "Kornblume" not in remembering.chat.requests[-1].prompt_text


def test_the_endpoint_answers_on_the_first_schema(bearer: Bearer, fake_openai: FakeOpenAI) -> None:
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    try:
        runtime.reset()
        own = {"X-Verse-Client-Chat": "mine"}
        assert bearer.ask(user("One"), headers=own).status == 200
        history = (user("One"), assistant("You said: One"))
        second = bearer.ask(*history, user("Two"), headers=own)
        third = bearer.ask(*history, user("Three"))
        named = bearer.ask(*history, user("Four"), headers={"X-Verse-Chat": str(second.chat)})
        assert {second.status, third.status, named.status} == {200}
        assert texts(second.chat)[:2] == ["Two", "You said: Two"]
        assert bearer.api.get("/v1/models").status_code == 200
    finally:
        call_command("migrate", "chat", verbosity=0)
        runtime.reset()
