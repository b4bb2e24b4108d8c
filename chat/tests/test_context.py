"""What of the memories found an answer is given: whole turns, nothing twice, nothing far from the question."""

import random

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.services import ChatService
from chat.tests.support import Api
from chat.tests.test_memory import contents, new_chat, say, search, wait_until_embedded
from fake_openai import Answer, FakeOpenAI
from retrieval import current_model, runtime
from retrieval.recall import min_similarity

pytestmark = pytest.mark.django_db(transaction=True)
FACT = "We moved the piano into the attic last spring."
QUESTION = "Where did we move the piano?"


@pytest.fixture
def client(alice: User, api: Api, remembering: FakeOpenAI) -> APIClient:
    """Alice's; the model's usual answer repeats nothing that would be found."""
    remembering.chat.default = Answer("Quite so.")
    runtime.reset()
    return api(alice)


def system_of(remembering: FakeOpenAI) -> str:
    """What the model was told last, before the conversation."""
    return str(remembering.chat.requests[-1].messages[0]["content"])


def test_a_memory_is_told_with_the_other_half_of_its_turn(
    client: APIClient, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        ChatService, "RAG_CONTEXT_LIMIT", 1
    )  # which the companion does not count towards
    remembering.chat.script(Answer("Very well, noted."))
    turn = say(client, new_chat(client), FACT)
    asked = say(client, new_chat(client), QUESTION)
    (memory,) = asked["context"]
    assert memory["content"] == FACT
    assert memory["with"] == [turn["assistant_message"]["id"]]
    told = system_of(remembering)
    assert told.index(FACT) < told.index("Very well, noted.")
    assert told.count("Very well, noted.") == 1
    read = client.get(
        f"/api/chats/{chat_of(asked)}/messages/{asked['assistant_message']['id']}/"
    ).json()
    assert read["context"] == asked["context"]


def test_a_companion_that_does_not_fit_is_left_out(
    client: APIClient, remembering: FakeOpenAI, settings: Settings
) -> None:
    remembering.chat.script(Answer("word " * 400))
    say(client, new_chat(client), FACT)
    settings.RAG_CONTEXT_TOKENS = 200
    asked = say(client, new_chat(client), QUESTION)
    assert contents(asked["context"])[0] == FACT
    assert "with" not in asked["context"][0]


def test_a_companion_that_was_deleted_is_gone_and_its_answer_forgotten(
    client: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatService, "RAG_CONTEXT_LIMIT", 1)
    address = new_chat(client)
    turn = say(client, address, FACT)
    asked = say(client, new_chat(client), QUESTION)
    client.delete(f"{address}{turn['assistant_message']['id']}/")
    read = client.get(
        f"/api/chats/{chat_of(asked)}/messages/{asked['assistant_message']['id']}/"
    ).json()
    assert "with" in asked["context"][0]
    assert [("with" in one) for one in read["context"]] == [False]
    assert asked["assistant_message"]["id"] not in [
        one["message_id"] for one in search(client, "Quite so", role="assistant")["results"]
    ]


def test_a_search_names_no_companions(client: APIClient) -> None:
    say(client, new_chat(client), FACT)
    assert all("with" not in one for one in search(client, QUESTION)["results"])


def test_what_was_said_often_is_told_once(client: APIClient) -> None:
    for text in (FACT, FACT, FACT.upper(), "We moved the piano into the attic, last spring!"):
        say(client, new_chat(client), text)
    say(client, new_chat(client), "The piano was tuned by Mr Ferro.")
    asked = say(client, new_chat(client), QUESTION)
    said = [one for one in contents(asked["context"]) if "attic" in one.lower()]
    assert len(said) == 1
    assert "The piano was tuned by Mr Ferro." in contents(asked["context"])


def test_a_question_that_is_asked_again_finds_what_it_asks_for_and_not_itself(
    client: APIClient, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    say(client, new_chat(client), FACT)
    monkeypatch.setattr(ChatService, "RAG_CONTEXT_LIMIT", 2)
    for answer in (
        "The piano? We move it where we please.",
        "A piano can be moved anywhere we like.",
        "Where? Ask the piano.",
    ):
        remembering.chat.script(Answer(answer))
        asked = say(client, new_chat(client), QUESTION)
        assert contents(asked["context"])[0] == FACT
        assert QUESTION not in contents(asked["context"])


def test_without_a_shared_word_only_what_is_near_enough_is_told(
    client: APIClient, settings: Settings
) -> None:
    say(client, new_chat(client), FACT)
    settings.RAG_MIN_SIMILARITY = 0.99
    assert say(client, new_chat(client), "Quantum chromodynamics explains hadrons")["context"] == []
    settings.RAG_MIN_SIMILARITY = -1
    assert say(client, new_chat(client), "Baryons contain quarks")["context"] != []


def test_the_least_similarity_of_an_unknown_model_is_measured_from_its_vectors(
    client: APIClient, alice: User, bob: User, api: Api
) -> None:
    assert min_similarity.min_similarity("text-embedding-3-small") == -1
    luck = random.Random(4)
    words = [
        "apple",
        "river",
        "stone",
        "cloud",
        "night",
        "train",
        "paper",
        "glass",
        "music",
        "bread",
    ]
    for person in (api(alice), api(bob)):
        address = new_chat(person)
        for _ in range(12):
            say(person, address, " ".join(luck.sample(words, 4)))
    wait_until_embedded()
    min_similarity.measure()
    runtime.reset()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_id, embedding::real[] FROM standalone_chat_messages WHERE embedding IS NOT NULL"
        )
        rows = cursor.fetchall()
    pairs = [float(np.dot(a, b)) for user, a in rows for other, b in rows if user < other]
    assert min_similarity.min_similarity("text-embedding-3-small") == pytest.approx(
        np.quantile(pairs, 0.95), abs=1e-3
    )
    assert current_model.current_model() == "text-embedding-3-small"


def chat_of(turn: dict[str, object]) -> int:
    """The chat that the turn was in."""
    with connection.cursor() as cursor:
        message = turn["user_message"]
        assert isinstance(message, dict)
        cursor.execute(
            "SELECT chat_id FROM standalone_chat_messages WHERE id = %s", [message["id"]]
        )
        return int(cursor.fetchone()[0])
