"""The history in prompts: whole turns, a beginning that stays, whatever fails in between."""

import random
from itertools import pairwise

import pytest
from django.contrib.auth.models import User
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.models import StandaloneChat
from chat.tests.model_server_support import begins_as_before, contents, post, prompts, talk
from fake_openai import (
    Answer,
    Behaviour,
    CutAfter,
    Echo,
    Empty,
    ErrorEvent,
    FakeOpenAI,
    Hang,
    HangAfter,
    Raw,
    Refuse,
    StrictRoles,
    Window,
)

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.usefixtures("unlimited"),
]


@pytest.mark.parametrize("failure", [Refuse(500), Hang(), Empty(), ErrorEvent()])
def test_a_question_without_an_answer_is_no_history(
    failure: Behaviour,
    client: APIClient,
    chat: StandaloneChat,
    fake_openai: FakeOpenAI,
    settings: Settings,
) -> None:
    settings.LLM_TIMEOUT_S = 2
    fake_openai.chat.default = StrictRoles()
    fake_openai.chat.script(StrictRoles(Answer("One.")), failure)
    statuses = [post(client, chat, text).status_code for text in ("First", "Second", "Third")]
    assert statuses[0] == statuses[2] == 201
    assert contents(prompts(fake_openai)[-1])[1:] == ["First", "One.", "Third"]


def test_an_interrupted_answer_with_text_is_history(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.script(CutAfter("So far"))
    assert post(client, chat, "First").status_code == 502
    assert post(client, chat, "Second").status_code == 201
    assert contents(prompts(fake_openai)[-1])[1:] == ["First", "So far", "Second"]


def test_long_messages_never_cut_a_turn_in_half(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    fake_openai.chat.default = StrictRoles(Answer("Noted."))
    for number in range(5):
        assert post(client, chat, f"{number} " + "some words " * 1090).status_code == 201


def test_imported_messages_of_one_time_are_whole_turns_in_the_prompt(
    alice: User, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI
) -> None:
    roles = ["assistant", "user", "user", "assistant", "assistant", "user"]
    for number, role in enumerate(roles):
        chat.messages.create(
            user=alice, role=role, content=f"text {number}", created_at=chat.created_at
        )
    fake_openai.chat.default = StrictRoles()
    assert post(client, chat).status_code == 201
    assert contents(prompts(fake_openai)[0])[1:] == ["text 2", "text 3\n\ntext 4", "Hello"]


def test_many_unanswered_questions_do_not_push_history_out(
    client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.CHAT_HISTORY_LIMIT = 4
    fake_openai.chat.script(Answer("One."), *[Refuse(503)] * 6)
    for number in range(8):
        post(client, chat, f"Question {number}")
    assert contents(prompts(fake_openai)[-1])[1:] == ["Question 0", "One.", "Question 7"]


@pytest.mark.soak
def test_sixty_turns_with_memory_begin_as_the_turn_before_in_54(
    alice: User, client: APIClient, chat: StandaloneChat, remembering: FakeOpenAI
) -> None:
    other = StandaloneChat.objects.create(user=alice, title="Sums")
    talk(client, other, remembering, 3)
    remembering.chat.default = StrictRoles()
    sent = talk(client, chat, remembering, 60)[3:]
    stable = [begins_as_before(*pair) for pair in pairwise(sent)]
    assert stable.count(True) >= 54
    assert sum("===== memories" in prompt[-1]["content"] for prompt in sent) > 50
    assert max(len(prompt) for prompt in sent) == 42
    assert min(len(prompt) for prompt in sent[30:]) == 22


FAILURES: list[Behaviour] = [
    Refuse(500), Refuse(429), Refuse(400, "content_filter"), Hang(), Empty(),
    CutAfter("So far"), HangAfter("So far"), ErrorEvent("So far"), Answer("<think>Hm"),
    Answer("Cut", finish_reason="length"), Raw(b"<html>", "text/html"),
]  # fmt: skip


@pytest.mark.parametrize(
    "seed", [1, 2, *(pytest.param(n, marks=pytest.mark.soak) for n in range(3, 21))]
)
def test_no_conversation_becomes_unanswerable_and_no_answer_is_lost(
    seed: int, client: APIClient, chat: StandaloneChat, fake_openai: FakeOpenAI, settings: Settings
) -> None:
    settings.LLM_TIMEOUT_S = 2
    choose = random.Random(seed)
    window = choose.choice([1800, 3000, 8192])
    answer = Echo(tokens=choose.choice([20, 150]))
    fake_openai.chat.default = Window(window, StrictRoles(answer))
    last_answer = None
    for number in range(50 if seed > 2 else 25):
        fails = choose.random() < 0.3
        fake_openai.chat.script(*[choose.choice(FAILURES)] * fails)
        words = "some words " * choose.choice([1, 5, 60])
        sent_before = len(fake_openai.chat.requests)
        response = post(client, chat, f"Question {number} of {seed} {words}")
        assert response.status_code in {201, 502, 504}
        assert fails or response.status_code == 201, response.data
        is_shortened = len(fake_openai.chat.requests) > sent_before + 1
        if last_answer and response.status_code == 201 and not is_shortened:
            assert last_answer in contents(prompts(fake_openai)[-1])
        if response.status_code == 201:
            last_answer = response.data["assistant_message"]["content"]
        elif response.data["assistant_message"]["content"]:
            last_answer = None  # the newest turn is an interrupted one
    assert post(client, chat).status_code == 201
