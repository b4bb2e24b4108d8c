"""For small talk nothing is recalled; for a question of few words what has them, or is near."""

import numpy as np
import pytest
from django.contrib.auth.models import User

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval import current_model, runtime
from retrieval.embeddings.bundled_models import DEFAULT
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
NUMBERS = np.random.default_rng(1).standard_normal((2, 1536), dtype=np.float32)
FAR = NUMBERS[0]  # from the messages' vectors, which are all NUMBERS[1]
SMALL_TALK = [
    "Thanks!",
    "Can you tell me a joke?",
    "What is the capital of Mongolia?",
    "Erzähl mir bitte einen Witz.",
    "Cuéntame un chiste, por favor.",
    "Quelle est la capitale du Canada ?",
    "你好！",
]
QUESTIONS = [
    "Who is Anthony?",  # a word that a message has
    "Where is the capital's bridge?",  # two words that one message has
    "Does my neighbour repair old wooden boats?",  # more words, none of them known
    "养老院的老人最近身体怎么样了？",
]


def remember(user: User, model: str) -> None:
    """Two messages whose vectors are by the model."""
    runtime.reset()
    current_model.check_model(model)
    chat = StandaloneChat.objects.create(user=user)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=user, conversation=chat, role="user", content=content, embedding=NUMBERS[1]
        )
        for content in ("Anthony sold the shed.", "The bridge in the capital was closed.")
    )


@pytest.mark.parametrize("question", SMALL_TALK)
def test_nothing_is_recalled_for_small_talk(question: str, alice: User) -> None:
    remember(alice, DEFAULT)
    assert recall(question, Scope(alice.pk), embedding=FAR, model=DEFAULT) == []


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_question_recalls_what_has_its_words_or_has_many(question: str, alice: User) -> None:
    remember(alice, DEFAULT)
    assert len(recall(question, Scope(alice.pk), embedding=FAR, model=DEFAULT)) == 2


def test_a_question_of_few_words_recalls_what_is_near(alice: User) -> None:
    remember(alice, DEFAULT)
    near = FAR + NUMBERS[1]
    assert len(recall("Thanks!", Scope(alice.pk), embedding=near, model=DEFAULT)) == 2


@pytest.mark.parametrize("model", ["another model", ""])
def test_other_models_and_words_alone_recall_as_for_any_question(model: str, alice: User) -> None:
    remember(alice, model or DEFAULT)
    embedding = FAR if model else None
    ranked = recall("Who is Anthony Jones?", Scope(alice.pk), embedding=embedding, model=model)
    assert len(ranked) == 2
