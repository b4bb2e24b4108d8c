"""Which memories an answer is given: whole turns, nothing twice, nothing unrelated."""

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
    """Alice's client. The model's default answer shares no word with the questions."""
    remembering.chat.default = Answer("Quite so.")
    runtime.reset()
    return api(alice)


def asked_of(remembering: FakeOpenAI) -> str:
    """The last message of the last request to the model."""
    return str(remembering.chat.requests[-1].messages[-1]["content"])


def test_a_memory_comes_with_the_other_half_of_its_turn(
    client: APIClient, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    # A companion does not count towards the limit.
    monkeypatch.setattr(ChatService, "RAG_CONTEXT_LIMIT", 1)
    remembering.chat.script(Answer("Very well, noted."))
    turn = say(client, new_chat(client), FACT)
    reply = say(client, new_chat(client), QUESTION)
    (memory,) = reply["context"]
    assert memory["content"] == FACT
    assert memory["with"] == [turn["assistant_message"]["id"]]
    last = asked_of(remembering)
    assert last.index(FACT) < last.index("Very well, noted.")
    assert last.count("Very well, noted.") == 1
    read = client.get(
        f"/api/chats/{chat_of(reply)}/messages/{reply['assistant_message']['id']}/"
    ).json()
    assert read["context"] == reply["context"]


def test_a_companion_that_does_not_fit_is_left_out(
    client: APIClient, remembering: FakeOpenAI, settings: Settings
) -> None:
    remembering.chat.script(Answer("word " * 400))
    say(client, new_chat(client), FACT)
    settings.RAG_CONTEXT_TOKENS = 200
    turn = say(client, new_chat(client), QUESTION)
    assert contents(turn["context"])[0] == FACT
    assert "with" not in turn["context"][0]


def test_a_deleted_companion_disappears_and_taints_its_answer(
    client: APIClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ChatService, "RAG_CONTEXT_LIMIT", 1)
    address = new_chat(client)
    turn = say(client, address, FACT)
    reply = say(client, new_chat(client), QUESTION)
    client.delete(f"{address}{turn['assistant_message']['id']}/")
    read = client.get(
        f"/api/chats/{chat_of(reply)}/messages/{reply['assistant_message']['id']}/"
    ).json()
    assert "with" in reply["context"][0]
    assert [("with" in memory) for memory in read["context"]] == [False]
    assert reply["assistant_message"]["id"] not in [
        memory["message_id"] for memory in search(client, "Quite so", role="assistant")["results"]
    ]


def test_a_search_names_no_companions(client: APIClient) -> None:
    say(client, new_chat(client), FACT)
    assert all("with" not in memory for memory in search(client, QUESTION)["results"])


def test_a_text_said_often_is_given_once(client: APIClient) -> None:
    for text in (FACT, FACT, FACT.upper(), "We moved the piano into the attic, last spring!"):
        say(client, new_chat(client), text)
    say(client, new_chat(client), "The piano was tuned by Mr Ferro.")
    reply = say(client, new_chat(client), QUESTION)
    repeated = [text for text in contents(reply["context"]) if "attic" in text.lower()]
    assert len(repeated) == 1
    assert "The piano was tuned by Mr Ferro." in contents(reply["context"])


def test_a_repeated_question_recalls_the_fact_and_not_itself(
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
        turn = say(client, new_chat(client), QUESTION)
        assert contents(turn["context"])[0] == FACT
        assert QUESTION not in contents(turn["context"])


def test_without_a_shared_word_only_similar_messages_are_given(
    client: APIClient, settings: Settings
) -> None:
    say(client, new_chat(client), FACT)
    settings.RAG_MIN_SIMILARITY = 0.99
    assert say(client, new_chat(client), "Quantum chromodynamics explains hadrons")["context"] == []
    settings.RAG_MIN_SIMILARITY = -1
    assert say(client, new_chat(client), "Baryons contain quarks")["context"] != []


def test_the_minimum_similarity_of_other_models_is_measured_from_their_vectors(
    client: APIClient, alice: User, bob: User, api: Api
) -> None:
    assert min_similarity.min_similarity("text-embedding-3-small") == -1
    rng = random.Random(4)
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
            say(person, address, " ".join(rng.sample(words, 4)))
    wait_until_embedded()
    min_similarity.measure()
    runtime.reset()
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT user_id, embedding::real[] FROM standalone_chat_messages"
            " WHERE embedding IS NOT NULL"
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
