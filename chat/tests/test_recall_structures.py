"""Memory follows the messages, however they are written, and never shows another user's."""

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection
from psycopg import sql

from chat.models import ChatMessage, Message, Passage, StandaloneChat, StandaloneChatMessage
from retrieval import current_model, db, runtime, steps, storage
from retrieval.models import message_tables
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
STEPS = 2_000
MODEL = "a model"
WORDS = [
    "bread",
    "dog",
    "river",
    "piano",
    "attic",
    "cheese",
    "sister",
    "museum",
    "garden",
    "letter",
    "train",
    "window",
]
COLUMNS = """
    id, user_id, conversation, created_at, by_user, terms, chars, is_question, search_config_id,
    bits, model
"""
# Memory's rows as its triggers would write them from today's messages.
ROWS = """
    SELECT r.*, {vector}.binary_quantize(m.embedding)::bit(1536), CASE WHEN m.embedding IS NOT NULL
        THEN (SELECT id FROM embedding_models WHERE current) END
    FROM {table} m CROSS JOIN LATERAL memory_row(
        {kind_bit}, m.id, m.user_id, m.{conversation}, m.created_at, m.role, m.content) r
    WHERE m.content <> ''
"""
COUNT_DIFFERENCES = """
    WITH stored AS (SELECT {columns} FROM message_memories), computed AS ({rows})
    SELECT count(*) FROM (
        (TABLE stored EXCEPT TABLE computed) UNION ALL (TABLE computed EXCEPT TABLE stored)
    ) x
"""


def count_differences() -> int:
    """How many rows are missing from memory, or are there and should not be."""
    rows = sql.SQL(" UNION ALL ").join(
        sql.SQL(ROWS).format(vector=db.VECTOR_SCHEMA, **table.names) for table in message_tables()
    )
    count = sql.SQL(COUNT_DIFFERENCES).format(columns=sql.SQL(COLUMNS), rows=rows)
    return int(db.execute(count, {})[0][0])


class Traffic:
    """Users write, edit and delete at random, partly by SQL that knows nothing of memory."""

    def __init__(self, users: list[User], seed: int) -> None:
        self.random = random.Random(seed)
        self.users = users
        self.numbers = np.random.default_rng(seed)

    def step(self) -> None:
        """One random write."""
        steps: list[tuple[Callable[[], None], int]] = [
            (self.create, 4),
            (self.add, 30),
            (self.add_by_sql, 10),
            (self.edit, 15),
            (self.move_in_time, 5),
            (self.embed, 25),
            (self.delete, 10),
            (self.delete_conversation, 1),
        ]
        self.random.choices([write for write, _ in steps], [weight for _, weight in steps])[0]()

    def text(self) -> str:
        """Random words; sometimes none, as in an answer that is being generated."""
        return " ".join(
            self.random.choices(WORDS, k=self.random.choice([0, 3, 5, 9]))
        ) + self.random.choice(["", "?"])

    def create(self) -> None:
        """A conversation."""
        user = self.random.choice(self.users)
        if self.random.random() < 0.5:
            StandaloneChat.objects.create(user=user)
        else:
            Passage.objects.create(user=user, reference="Tobit 6", text="And the dog followed.")

    def add(self) -> None:
        """Some messages in one statement."""
        conversation = self.conversation()
        if conversation:
            model: Any = ChatMessage if isinstance(conversation, Passage) else StandaloneChatMessage
            model.objects.bulk_create(
                model(
                    user=conversation.user,
                    conversation=conversation,
                    role="user",
                    content=self.text(),
                )
                for _ in range(self.random.randint(1, 3))
            )

    def add_by_sql(self) -> None:
        """Do what old code does, which knows nothing of memory."""
        chat = StandaloneChat.objects.order_by("?").first()
        if chat:
            with connection.cursor() as cursor:
                cursor.execute(
                    "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content) "
                    "VALUES (%s, %s, 'assistant', %s)",
                    [chat.user_id, chat.pk, self.text()],
                )

    def edit(self) -> None:
        for message in self.messages(1):
            message.content = self.text()
            message.save(update_fields=["content"])

    def move_in_time(self) -> None:
        with connection.cursor() as cursor:
            for message in self.messages(2):
                cursor.execute(
                    f"UPDATE {message._meta.db_table} "
                    "SET created_at = created_at - interval '40 days' WHERE id = %s",
                    [message.pk],
                )

    def embed(self) -> None:
        """Store embeddings for up to three messages, remove that of another."""
        rows = self.messages(4)
        for message in rows[1:]:
            vector = self.numbers.standard_normal(1536, dtype=np.float32)
            storage.store(message.memory_table, message.pk, message.content, vector, model=MODEL)
        with connection.cursor() as cursor:
            for message in rows[:1]:
                cursor.execute(
                    f"UPDATE {message._meta.db_table} SET embedding = NULL WHERE id = %s",
                    [message.pk],
                )

    def delete(self) -> None:
        for message in self.messages(2):
            message.delete()

    def delete_conversation(self) -> None:
        conversation = self.conversation()
        if conversation:
            conversation.delete()

    def conversation(self) -> StandaloneChat | Passage | None:
        """A random conversation of a random kind; None if there is none."""
        if self.random.random() < 0.5:
            return StandaloneChat.objects.order_by("?").first()
        return Passage.objects.order_by("?").first()

    def messages(self, limit: int) -> list[Message]:
        """Random messages of one table."""
        table = ChatMessage if self.random.random() < 0.5 else StandaloneChatMessage
        return list(table._default_manager.order_by("?")[:limit])


@pytest.mark.parametrize("seed", [1, pytest.param(2, marks=pytest.mark.soak)])
def test_after_random_writes_memory_equals_its_rows_made_again(
    alice: User, bob: User, seed: int
) -> None:
    runtime.reset()
    current_model.check_model(MODEL)
    traffic = Traffic([alice, bob], seed)
    for _ in range(STEPS // 2):
        traffic.step()
    assert count_differences() == 0
    ((rows, embedded),) = db.execute("SELECT count(*), count(bits) FROM message_memories", {})
    assert rows > 200
    assert embedded > 50


def test_colliding_terms_show_nobody_another_users_messages(alice: User, bob: User) -> None:
    for user, content in ((alice, "Alice keeps bees."), (bob, "Bob keeps goats.")):
        chat = StandaloneChat.objects.create(user=user)
        StandaloneChatMessage.objects.create(
            user=user, conversation=chat, role="user", content=content
        )
    # As if every word of both users had the hashes of alice's question.
    db.execute(
        "UPDATE message_memories SET terms = message_terms(%(user)s, 'bees goats')",
        {"user": alice.pk},
    )
    mine = StandaloneChatMessage.objects.get(user=alice)
    ranked = recall("bees and goats", Scope(alice.pk), embedding=None)
    assert [each.ref for each in ranked] == [mine.memory_table.pack_ref(mine.pk)]


def test_confused_conversations_show_nobody_another_users_messages(alice: User, bob: User) -> None:
    for user, role in ((alice, "user"), (bob, "assistant"), (alice, "user")):
        chat = StandaloneChat.objects.create(user=user)
        StandaloneChatMessage.objects.create(
            user=user, conversation=chat, role=role, content="The goats and the bees."
        )
    # As if all were in one conversation: the turns around each message are the other user's.
    db.execute("UPDATE message_memories SET conversation = 0", {})
    for user in (alice, bob):
        own = {
            pk * 2
            for pk in StandaloneChatMessage.objects.filter(user=user).values_list("pk", flat=True)
        }
        ranked = recall("Goats and bees?", Scope(user.pk), embedding=None, companions=True)
        assert {each.ref for each in ranked} == own
        assert {each.companion for each in ranked} == {None}


def test_first_lookups_at_the_same_moment_all_find_memory(alice: User) -> None:
    for _ in range(20):
        runtime.reset()
        lookups = [steps.submit(db.vector_type) for _ in range(8)]
        assert all(lookup.result() for lookup in lookups)
