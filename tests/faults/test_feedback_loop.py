"""A model that is wrong ten times: its answers must not take the place of the user's own words."""

from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from rest_framework.test import APIClient

from chat.memory.embed import finish_embedding_jobs
from fake_openai import Answer, FakeOpenAI

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FACT = "My cat is called Minka."
QUESTIONS = [
    "What is my cat called?",
    "Do you remember the name of my cat?",
    "Which name does my cat have?",
    "How did I say my cat is called?",
    "Tell me what my cat is called, please.",
    "The vet asks for the name of my cat.",
    "Write a line about my cat with its name.",
    "What should stand on my cat's collar?",
    "Remind me: my cat is called what?",
    "Is it time to feed my cat, and who is she?",
]
WRONG = [
    "Your cat is called Rex.",
    "The name of your cat is Rex.",
    "Your cat has the name Rex, as you said.",
    "You said that your cat is called Rex.",
    "Of course: your cat is called Rex.",
    "Tell the vet that your cat is called Rex.",
    "Rex, your cat, sleeps in the sun and is called Rex.",
    "The collar of your cat should say Rex.",
    "Your cat is called Rex, as I know.",
    "Yes, feed your cat now: she is called Rex.",
]
Context = list[dict[str, Any]]
Record = Callable[[str, object], None]


def ask(client: APIClient, content: str) -> Context:
    """The memories of a question in a chat of its own, best first."""
    chat = client.post("/api/chats/", {}, format="json").json()["id"]
    turn = client.post(f"/api/chats/{chat}/messages/", {"content": content}, format="json")
    finish_embedding_jobs()
    return list(turn.json()["context"])


@pytest.fixture
def wrong(
    remembering: FakeOpenAI, alice: User, api: Callable[[User], APIClient], unlimited: None
) -> APIClient:
    """Alice has said what her cat is called; each answer is wrong."""
    remembering.chat.script(Answer("Nice to meet Rex!"), *map(Answer, WRONG))
    client = api(alice)
    ask(client, FACT)
    return client


def place_of_fact(context: Context) -> int | None:
    contents = [memory["content"] for memory in context]
    return contents.index(FACT) if FACT in contents else None


def test_the_same_question_is_always_given_the_users_words_first(wrong: APIClient) -> None:
    contexts = [ask(wrong, QUESTIONS[0]) for _ in WRONG]
    assert [place_of_fact(context) for context in contexts] == [0] * len(WRONG)


def test_wrong_answers_do_not_fill_the_memories_of_ten_questions(
    wrong: APIClient, record_property: Record
) -> None:
    contexts = [ask(wrong, question) for question in QUESTIONS]
    places = [place_of_fact(context) for context in contexts]
    answers = [sum(memory["role"] == "assistant" for memory in context) for context in contexts]
    record_property("figure", f"the user's words first in {places.count(0)} of 10 questions")
    record_property("figure", f"among the five in {10 - places.count(None)} of 10")
    assert max(answers) <= 3
