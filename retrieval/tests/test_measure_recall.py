"""measure_recall prints figures of the database and stores them."""

import io
import json

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval import current_model, runtime, storage

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


def stored() -> list[tuple[float, ...]]:
    """All measurements."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT questions, users, recall FROM recall_measurements ORDER BY measured_at"
        )
        return list(cursor.fetchall())


@pytest.fixture
def embedded(alice: User) -> None:
    """Embedded messages, more than an exact comparison takes."""
    runtime.reset()
    current_model.check_model("a model")
    chat = StandaloneChat.objects.create(user=alice)
    numbers = np.random.default_rng(1)
    space = numbers.standard_normal(
        (16, 1536), dtype=np.float32
    )  # in noise alone all would be equally far apart
    for number in range(160):
        message = StandaloneChatMessage.objects.create(
            user=alice, conversation=chat, role="user", content=f"Bread number {number}"
        )
        vector = numbers.standard_normal(16, dtype=np.float32) @ space
        storage.store(message.memory_table, message.pk, message.content, vector, model="a model")


def test_the_figures_are_printed_and_stored(embedded: None) -> None:
    out, errors = io.StringIO(), io.StringIO()
    call_command("measure_recall", "--json", stdout=out, stderr=errors)
    figures = json.loads(out.getvalue())
    assert (figures["users"], figures["recall"]) == (1, 1.0)
    ((questions, users, recall),) = stored()
    assert (questions, users) == (figures["questions"], 1)
    assert recall == pytest.approx(figures["recall"], abs=1e-4)
    assert errors.getvalue() == ""


def test_it_warns_if_recall_is_low(embedded: None) -> None:
    with connection.cursor() as cursor:  # as after a restore without the triggers
        cursor.execute("UPDATE message_memories SET bits = ~bits")
    errors = io.StringIO()
    call_command("measure_recall", stdout=io.StringIO(), stderr=errors)
    assert "below 0.99" in errors.getvalue()


def test_without_embeddings_there_is_nothing_to_measure(alice: User) -> None:
    with pytest.raises(CommandError, match="run backfill_embeddings first"):
        call_command("measure_recall", stdout=io.StringIO())
    assert stored() == []
