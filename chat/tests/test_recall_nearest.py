"""Recall orders by more than meaning; of a long list the nearest by meaning are part even so."""

import numpy as np
import pytest
from django.contrib.auth.models import User
from numpy.typing import NDArray

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval import current_model, runtime
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
MESSAGES, QUESTIONS, MODEL = 400, 12, "a model"
TOPICS, HIDDEN, NOISE = 40, 64, 0.55  # as near to each other as texts, as in benchmarks/people.py


def unit_vectors(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


@pytest.fixture
def vectors(alice: User) -> NDArray[np.float32]:
    """Of Alice's messages in one conversation, by their ids; the last are of questions."""
    luck = np.random.default_rng(1)
    topics = luck.standard_normal((TOPICS, HIDDEN))[luck.integers(TOPICS, size=MESSAGES)]
    hidden = topics + NOISE * luck.standard_normal((MESSAGES, HIDDEN))
    questions = hidden[:QUESTIONS] + NOISE * luck.standard_normal((QUESTIONS, HIDDEN))
    numbers = unit_vectors(np.vstack([hidden, questions]) @ luck.standard_normal((HIDDEN, 1536)))
    chat = StandaloneChat.objects.create(user=alice)
    runtime.reset()
    current_model.check_model(MODEL)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=alice,
            conversation=chat,
            role="assistant" if number % 2 else "user",
            content=f"The {luck.choice(['bread', 'river', 'piano', 'attic'])} of day {number}.",
            embedding=vector,
        )
        for number, vector in enumerate(numbers[:MESSAGES])
    )
    return numbers


def test_a_long_list_has_the_five_nearest_and_the_same_beginning(
    alice: User, vectors: NDArray[np.float32]
) -> None:
    table = StandaloneChatMessage.memory_table
    keys = StandaloneChatMessage.objects.order_by("pk").values_list("pk", flat=True)
    refs = np.array([table.pack_ref(pk) for pk in keys])
    for question in vectors[MESSAGES:]:
        short, long = (
            recall("bread by the river", Scope(alice.pk), embedding=question, model=MODEL, limit=n)
            for n in (25, 50)
        )
        nearest = refs[np.argsort(-(vectors[:MESSAGES] @ question))[:5]]
        assert len(long) == 50
        assert set(nearest) <= {message.ref for message in long}
        assert [message.ref for message in long[:10]] == [message.ref for message in short[:10]]
