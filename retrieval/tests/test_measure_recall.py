"""measure_recall: figures of the database as it is, kept."""

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


def kept() -> list[tuple[float, ...]]:
    """All measurements."""
    with connection.cursor() as cursor:
        cursor.execute(
            "SELECT questions, users, recall FROM recall_measurements ORDER BY measured_at"
        )
        return list(cursor.fetchall())


@pytest.fixture
def said(alice: User) -> None:
    """Embedded messages, more than are compared one by one."""
    runtime.reset()
    current_model.check_model("a model")
    chat = StandaloneChat.objects.create(user=alice)
    numbers = np.random.default_rng(1)
    space = numbers.standard_normal(
        (16, 1536), dtype=np.float32
    )  # noise alone would be as far from all as from any
    for number in range(160):
        one = StandaloneChatMessage.objects.create(
            user=alice, conversation=chat, role="user", content=f"Bread number {number}"
        )
        vector = numbers.standard_normal(16, dtype=np.float32) @ space
        storage.store(one.memory_table, one.pk, one.content, vector, model="a model")


def test_the_figures_are_said_and_kept(said: None) -> None:
    out, told = io.StringIO(), io.StringIO()
    call_command("measure_recall", "--json", stdout=out, stderr=told)
    found = json.loads(out.getvalue())
    assert (found["users"], found["recall"]) == (1, 1.0)
    ((questions, users, recall),) = kept()
    assert (questions, users) == (found["questions"], 1)
    assert recall == pytest.approx(found["recall"], abs=1e-4)
    assert told.getvalue() == ""


def test_it_warns_where_recall_is_low(said: None) -> None:
    with connection.cursor() as cursor:  # as after a restore that lost what the triggers keep
        cursor.execute("UPDATE message_memories SET bits = ~bits")
    told = io.StringIO()
    call_command("measure_recall", stdout=io.StringIO(), stderr=told)
    assert "below 0.99" in told.getvalue()


def test_with_nothing_embedded_there_is_nothing_to_measure(alice: User) -> None:
    with pytest.raises(CommandError, match="run backfill_embeddings first"):
        call_command("measure_recall", stdout=io.StringIO())
    assert kept() == []
