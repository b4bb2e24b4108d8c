"""At every moment of a fill, recall is that of a database in which only what is filled was ever said."""

import random
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain, product
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
from retrieval.recall.candidates import Scope, recall

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MODEL = "text-embedding-3-small"
MIGRATIONS = ("0005_memory",)
# In each conversation before memory came. A user has fewer messages than recall compares by cosine, 100: of more it
# may take any that are equally near.
SAID = 25
QUESTIONS = (
    "Where is the bread?",
    "Did the dog see a piano in the attic?",
    "What was in May 2024?",
)
ASKEW = np.random.default_rng(1).standard_normal(1536, dtype=np.float32) * np.float32(
    1e-3
)  # no two are equally near
SAY = """
    INSERT INTO {table} (user_id, {parent}, role, content, created_at)
    VALUES (%s, %s, %s, %s, timestamptz '2024-05-01' + %s * interval '1 hour')
"""
# What recall's table knows is said anew, with its number, its time and its embedding.
KEEP = """
    CREATE TEMPORARY TABLE kept_{number} ON COMMIT DROP AS
    SELECT m.* FROM {table} m JOIN message_memories p ON p.id = m.id * 2 + {number}
"""
SAY_ANEW = "INSERT INTO {table} OVERRIDING SYSTEM VALUE SELECT * FROM kept_{number} ORDER BY id"


def run(statement: str, *params: Any) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(statement, params or None)
        return list(cursor.fetchall()) if cursor.description else []


class Life:
    """What people say and change meanwhile, by SQL that knows nothing of memory."""

    def __init__(self, users: list[User]) -> None:
        self.luck = random.Random(1)
        self.users = users
        self.conversations = [
            (source, user.pk, parent.objects.create(user=user).pk)
            for user in users
            for source, parent in zip(message_tables(), (StandaloneChat, Passage), strict=True)
        ]

    def text(self) -> str:
        """Something, a question now and then."""
        others = [f"other{self.luck.randrange(200)}" for _ in range(4)]
        return " ".join(self.luck.choices(WORDS, k=2) + others) + self.luck.choice([".", "?"])

    def say(self, times: int) -> None:
        """In every conversation so often; later ids may have earlier times."""
        for _, (source, user, parent) in product(range(times), self.conversations):
            statement = SAY.format(table=source.table, parent=source.conversation)
            role, hours = self.luck.choice(["user", "assistant"]), self.luck.randrange(2_000)
            run(statement, user, parent, role, self.text(), hours)

    def go_on(self) -> None:
        """Something is said in every conversation, in each table something deleted and changed, filled or not."""
        self.say(1)
        for source in message_tables():
            gone, changed = self.luck.sample(
                [pk for (pk,) in run(f"SELECT id FROM {source.table} ORDER BY id")], 2
            )
            run(f"DELETE FROM {source.table} WHERE id = %s", gone)
            run(f"UPDATE {source.table} SET content = %s WHERE id = %s", self.text(), changed)


@pytest.fixture
def schema() -> Iterator[None]:
    """The oldest; afterwards the newest again."""
    call_command("migrate", "chat", "0001_initial", verbosity=0)
    yield
    call_command("migrate", "chat", verbosity=0)
    runtime.reset()


@contextmanager
def said_anew() -> Iterator[None]:
    """Nothing was ever said but what recall's table knows; undone at the end."""
    with transaction.atomic():
        for source in message_tables():
            run(KEEP.format(table=source.table, number=source.kind_bit))
        run("TRUNCATE chat_messages, standalone_chat_messages, message_memories CASCADE")
        for source in message_tables():
            run(SAY_ANEW.format(table=source.table, number=source.kind_bit))
        yield
        transaction.set_rollback(True)


def found_by(users: list[User]) -> list[list[tuple[Any, ...]]]:
    """What each of them finds, by words alone and by meaning too, as it is ranked."""
    found = []
    for user, question, by_meaning in product(users, QUESTIONS, (False, True)):
        vector = np.array(vector_of(question, 1536), dtype=np.float32) + ASKEW
        ranked = recall(
            question, Scope(user.pk), embedding=vector if by_meaning else None, model=MODEL
        )
        found.append(
            [(one.ref, round(one.score, 9), one.companion, one.shares_words) for one in ranked]
        )
    return found


def check(users: list[User]) -> tuple[int, int, int]:
    """How many messages there are, are filled, and are embedded; what is found is as if these were said anew."""
    found = found_by(users)
    with said_anew():
        assert found_by(users) == found
    (there,) = run(
        "SELECT (SELECT count(*) FROM chat_messages) + (SELECT count(*) FROM standalone_chat_messages)"
    )
    (known,) = run("SELECT count(*), count(bits) FROM message_memories")
    assert any(found)
    return there + known


@pytest.mark.parametrize(
    ("others", "window", "batch"), [(0, 40, 50), pytest.param(14, 300, 100, marks=pytest.mark.soak)]
)
def test_what_is_filled_is_recalled_as_if_nothing_else_had_been_said(
    others: int,
    window: int,
    batch: int,
    alice: User,
    bob: User,
    schema: None,
    remembering: FakeOpenAI,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(fill_words, "BATCH_ROWS", window)
    life = Life([alice, bob, *(User.objects.create(username=f"other {n}") for n in range(others))])
    life.say(SAID)
    moments = []
    for migration in MIGRATIONS:
        call_command("migrate", "chat", migration, verbosity=0)
        runtime.reset()
        life.go_on()
        moments.append(check(life.users))
    work = Backfill(batch_size=batch)
    for step, _ in enumerate(chain(work.fill_words(), work.embed())):
        if step % 2 == 0:  # at every step there would always be one more
            life.go_on()
        moments.append(check(life.users))
    assert len(set(moments)) > len(MIGRATIONS) + 4
    assert all(
        filled < 0.3 * there and not embedded
        for there, filled, embedded in moments[: len(MIGRATIONS)]
    )
    there, filled, embedded = moments[-1]
    assert 0.9 * there < embedded < filled == there
