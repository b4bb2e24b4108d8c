"""While the backfill runs, recall is that of a database which has only the filled messages."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection, transaction

from chat.models import Passage, StandaloneChat
from chat.tests.test_recall_structures import WORDS
from fake_openai import FakeOpenAI
from fake_openai.vectors import vector_of
from retrieval import runtime
from retrieval.backfill import Backfill, fill_words
from retrieval.models import message_tables
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MODEL = "text-embedding-3-small"
ROUNDS_BEFORE = 3  # between the migration and the backfill
# In each conversation before the migration. A user has fewer messages than the 100 that recall
# compares by cosine: of more it may take any that are equally near.
MESSAGES_BEFORE = 25
QUESTIONS = (
    "Where is the bread?",
    "Did the dog see a piano in the attic?",
    "What was in May 2024?",
)
# Added to a question's vector, so that no two messages are equally near.
NOISE = np.random.default_rng(1).standard_normal(1536, dtype=np.float32) * np.float32(1e-3)
INSERT = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    VALUES (%s, %s, %s, %s, timestamptz '2024-05-01' + %s * interval '1 hour')
"""
# The messages in memory are deleted and inserted again, with id, time and embedding.
COPY = """
    CREATE TEMPORARY TABLE copy_{number} ON COMMIT DROP AS
    SELECT m.* FROM {table} m JOIN message_memories p ON p.id = m.id * 2 + {number}
"""
RESTORE = "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM copy_{number} ORDER BY id"


def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return list(cursor.fetchall()) if cursor.description else []


class Traffic:
    """What users write and change meanwhile, by SQL that knows nothing of memory."""

    def __init__(self, users: list[User]) -> None:
        self.random = random.Random(1)
        self.users = users
        self.edited: set[int] = set()  # packed refs
        self.conversations = [
            (source, user.pk, parent.objects.create(user=user).pk)
            for user in users
            for source, parent in zip(message_tables(), (StandaloneChat, Passage), strict=True)
        ]

    def text(self) -> str:
        """Random words, sometimes a question."""
        others = [f"other{self.random.randrange(200)}" for _ in range(4)]
        return " ".join(self.random.choices(WORDS, k=2) + others) + self.random.choice([".", "?"])

    def add(self, times: int) -> None:
        """So many messages in each conversation; later ids may have earlier times."""
        for _, (source, user, parent) in product(range(times), self.conversations):
            statement = INSERT.format(table=source.table, parent=source.conversation)
            role, hours = self.random.choice(["user", "assistant"]), self.random.randrange(2_000)
            run(statement, user, parent, role, self.text(), hours)

    def go_on(self) -> None:
        """Add a message to each conversation, delete one and edit one of each table."""
        self.add(1)
        for source in message_tables():
            deleted, edited = self.random.sample(
                [pk for (pk,) in run(f"SELECT id FROM {source.table} ORDER BY id")], 2
            )
            run(f"DELETE FROM {source.table} WHERE id = %s", deleted)
            run(f"UPDATE {source.table} SET content = %s WHERE id = %s", self.text(), edited)
            self.edited.add(source.pack_ref(edited))


@pytest.fixture
def first_schema() -> Iterator[None]:
    """Without memory; afterwards today's schema again."""
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    yield
    call_command("migrate", "chat", verbosity=0)
    runtime.reset()


@contextmanager
def only_filled_messages() -> Iterator[None]:
    """Delete all messages but those in memory, which are written again; undone at the end."""
    with transaction.atomic():
        for source in message_tables():
            run(COPY.format(table=source.table, number=source.kind_bit))
        run("TRUNCATE chat_messages, standalone_chat_messages, message_memories CASCADE")
        for source in message_tables():
            run(RESTORE.format(table=source.table, number=source.kind_bit))
        yield
        transaction.set_rollback(True)


def recalled_by(users: list[User]) -> list[list[tuple[Any, ...]]]:
    """What each question finds for each user, by words alone and by meaning too, as ranked."""
    results = []
    for user, question, by_meaning in product(users, QUESTIONS, (False, True)):
        vector = np.array(vector_of(question, 1536), dtype=np.float32) + NOISE
        ranked = recall(
            question, Scope(user.pk), embedding=vector if by_meaning else None, model=MODEL
        )
        results.append([(each.ref, round(each.score, 9), each.companion) for each in ranked])
    return results


def check(users: list[User]) -> tuple[int, int, int]:
    """Compare recall with that of the filled messages alone.

    Returns how many messages there are, how many of them are in memory, how many embedded.
    """
    recalled = recalled_by(users)
    with only_filled_messages():
        assert recalled_by(users) == recalled
    assert any(recalled)
    (total,) = run("""
        SELECT (SELECT count(*) FROM chat_messages)
            + (SELECT count(*) FROM standalone_chat_messages)
    """)
    (filled_and_embedded,) = run("SELECT count(*), count(bits) FROM message_memories")
    return total + filled_and_embedded


def pending_refs() -> set[int]:
    """The packed refs of the messages in memory that have no vector."""
    return {ref for (ref,) in run("SELECT id FROM message_memories WHERE bits IS NULL")}


@pytest.mark.parametrize(
    ("others", "window", "batch"), [(0, 40, 50), pytest.param(14, 300, 100, marks=pytest.mark.soak)]
)
def test_recall_during_a_fill_is_that_of_the_filled_messages_alone(
    others: int,
    window: int,
    batch: int,
    alice: User,
    bob: User,
    first_schema: None,
    remembering: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", window)
    users = [alice, bob, *(User.objects.create(username=f"other {n}") for n in range(others))]
    traffic = Traffic(users)
    traffic.add(MESSAGES_BEFORE)
    call_command("migrate", "chat", verbosity=0)
    runtime.reset()
    moments = []
    for _ in range(ROUNDS_BEFORE):
        traffic.go_on()
        moments.append(check(users))
    backfill = Backfill(batch_size=batch)
    for step, _ in enumerate(backfill.fill_words()):
        if step % 2 == 0:  # at every step there would always be another message to fill
            traffic.go_on()
        moments.append(check(users))
    pending_at_start = pending_refs()
    traffic.edited.clear()
    for step, _ in enumerate(backfill.embed()):
        if step % 2 == 0:
            traffic.go_on()
        moments.append(check(users))
    assert len(set(moments)) > ROUNDS_BEFORE + 4
    assert all(
        filled < 0.3 * total and not embedded for total, filled, embedded in moments[:ROUNDS_BEFORE]
    )
    total, filled, embedded = moments[-1]
    assert 0 < embedded < filled == total
    assert pending_at_start & pending_refs() <= traffic.edited
