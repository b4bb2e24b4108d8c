"""A user with very many messages of one repeated word changes no other user's recall."""

from itertools import product
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from psycopg import sql

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.plan_support import Reads, reads_of
from retrieval import current_model, db, runtime, storage
from retrieval.models import message_tables
from retrieval.recall import candidates
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from retrieval.schema import bulk_insert_memories

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MANY = [5_000, pytest.param(200_000, marks=pytest.mark.soak)]
MODEL = "a model"
SOURCE = StandaloneChatMessage.memory_table
NEIGHBOURS, EACH = 100, 30  # most users have few messages, as the planner must know
WORDS = ("bread", "river", "piano", "attic", "cheese", "museum", "garden", "letter")
QUESTIONS = ("Which bread is it?", "Is there bread by the piano in the attic?", "Tell me")
VECTOR = np.random.default_rng(1).standard_normal(1536, dtype=np.float32)
SAY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END, %(text)s,
        timestamptz '2024-05-03' + n * interval '1 second'
    FROM standalone_chats, generate_series(1, %(count)s) n WHERE user_id = ANY (%(users)s)
"""
# As the triggers would do if each message had this embedding: recall needs only the signs of it.
REMEMBER = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, search_config_id, bits, model)
    SELECT r.*, {vector}.binary_quantize(%(vector)b)::bit(1536),
        (SELECT id FROM embedding_models WHERE current)
    FROM standalone_chat_messages m CROSS JOIN LATERAL memory_row(
        0, m.id, m.user_id, m.chat_id, m.created_at, m.role, m.content) r
    WHERE m.user_id = ANY (%(users)s)
"""


def say(users: list[User], text: str, count: int) -> None:
    """``count`` messages in a chat of each user, all with the embedding that is searched."""
    StandaloneChat.objects.bulk_create(StandaloneChat(user=user) for user in users)
    params = {"users": [user.pk for user in users], "text": text, "count": count, "vector": VECTOR}
    with transaction.atomic():
        bulk_insert_memories.defer_memory_insert()
        db.execute(SAY, params)
        db.execute(sql.SQL(REMEMBER).format(vector=db.VECTOR_SCHEMA), params)


@pytest.fixture
def alice_among_others(alice: User) -> User:
    """Alice, with embedded messages of different words."""
    runtime.reset()
    current_model.check_model(MODEL)
    # The dead rows of an earlier test would change the plans.
    db.execute("TRUNCATE message_memories", {})
    say(
        [User.objects.create(username=f"neighbour {n}") for n in range(NEIGHBOURS)],
        "The bread is there.",
        EACH,
    )
    chat, rng = StandaloneChat.objects.create(user=alice), np.random.default_rng(2)
    for number in range(40):
        content = " ".join(rng.choice(WORDS, 4))
        message = StandaloneChatMessage.objects.create(
            user=alice, conversation=chat, role="user", content=content
        )
        near = VECTOR + rng.standard_normal(1536, dtype=np.float32) * np.float32(1 + number / 10)
        assert storage.store(SOURCE, message.pk, content, near, model=MODEL)
    storage.vacuum(message_tables())
    return alice


def recalled_by(user: User) -> list[Any]:
    """Refs and scores, by words and by meaning."""
    results = []
    for question, embedding in product(QUESTIONS, (None, VECTOR)):
        ranked = recall(question, Scope(user.pk), embedding=embedding, model=MODEL)
        results.append([(match.ref, round(match.score, 9), match.companion) for match in ranked])
    return results


def read_by(user: User) -> list[Reads]:
    """What a recall by words reads, and one by meaning too, planned now."""
    db.execute("DISCARD PLANS", {})
    return [
        reads_of(
            lambda embedding=embedding: recall(  # type: ignore[misc] # of mypy's inference
                QUESTIONS[1], Scope(user.pk), embedding=embedding, model=MODEL
            )
        )
        for embedding in (None, VECTOR)
    ]


@pytest.mark.parametrize("many", MANY)
def test_other_users_recall_the_same_and_read_no_more(
    many: int, alice_among_others: User, bob: User
) -> None:
    results, reads_before = recalled_by(alice_among_others), read_by(alice_among_others)
    assert all(map(len, results[:2]))
    say([bob], "bread " * 20, many)
    assert recalled_by(alice_among_others) == results  # before the statistics know
    storage.vacuum(message_tables())
    assert recalled_by(alice_among_others) == results
    for before, after in zip(reads_before, read_by(alice_among_others), strict=True):
        assert after.whole_tables == 0
        # A plan may read pages of the table where vacuum could not mark them for the index alone.
        assert sum(after.rows.values()) <= 2 * sum(before.rows.values())


@pytest.mark.parametrize("many", MANY)
def test_their_own_recall_reads_little_and_finds_other_messages(
    many: int, alice_among_others: User, bob: User
) -> None:
    say([bob], "bread " * 20, many)
    chat = StandaloneChat.objects.create(user=bob)
    other_message = StandaloneChatMessage.objects.create(
        user=bob, conversation=chat, role="user", content="A piano, an attic."
    )
    storage.vacuum(message_tables())
    for by_meaning, reads in enumerate(read_by(bob)):
        # The word's messages up to the limit; by meaning the signs of all, from an index. Then the
        # seeds' neighbours, some of them asked for the word, and the best.
        around = 9 * (candidates.WORD_SEEDS_ALONE + candidates.MEANING_SEEDS)
        assert reads.whole_tables == 0
        max_rows = candidates.MAX_TERM_MESSAGES + around + 100 + 10_000 + by_meaning * many
        assert reads.of("message_memories") <= max_rows
        assert reads.of("message_memories_recall") <= by_meaning * (many + 1) + around
        assert reads.of("message_memories_user") <= 10_000
    ranked = recall(QUESTIONS[1], Scope(bob.pk), embedding=None)
    assert ranked[0].ref == SOURCE.pack_ref(other_message.pk)
