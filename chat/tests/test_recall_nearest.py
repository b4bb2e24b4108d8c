"""Recall orders by more than meaning; a long list has the nearest by meaning nevertheless."""

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
# As near to each other as texts: benchmarks/generated_messages.py.
TOPICS, LATENT, NOISE = 40, 64, 0.55


def unit_vectors(rows: NDArray[np.float64]) -> NDArray[np.float32]:
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    return rows.astype(np.float32)


@pytest.fixture(params=[1536, 384])
def vectors(alice: User, request: pytest.FixtureRequest) -> NDArray[np.float32]:
    """The vectors of Alice's messages, all in one conversation and by id; then of questions.

    A model of fewer numbers than 1,536 is padded with zeros.
    """
    rng = np.random.default_rng(1)
    topics = rng.standard_normal((TOPICS, LATENT))[rng.integers(TOPICS, size=MESSAGES)]
    latent = topics + NOISE * rng.standard_normal((MESSAGES, LATENT))
    questions = latent[:QUESTIONS] + NOISE * rng.standard_normal((QUESTIONS, LATENT))
    numbers = np.zeros((MESSAGES + QUESTIONS, 1536), np.float32)
    numbers[:, : request.param] = unit_vectors(
        np.vstack([latent, questions]) @ rng.standard_normal((LATENT, request.param))
    )
    chat = StandaloneChat.objects.create(user=alice)
    runtime.reset()
    current_model.check_model(MODEL)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=alice,
            conversation=chat,
            role="assistant" if number % 2 else "user",
            content=f"The {rng.choice(['bread', 'river', 'piano', 'attic'])} of day {number}.",
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
