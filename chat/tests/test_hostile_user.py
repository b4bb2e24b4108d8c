"""Somebody with very many messages of one repeated word: their recall reads little, and nobody else's changes."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from psycopg import sql

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.tests.plan_support import MEMORIES, MESSAGES, plan_of, rows_read
from retrieval import current_model, db, runtime, storage
from retrieval.models import message_tables
from retrieval.recall import candidates
from retrieval.recall.candidates import Scope
from retrieval.schema import bulk

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
MANY = [5_000, pytest.param(200_000, marks=pytest.mark.soak)]
MODEL = "a model"
SOURCE = StandaloneChatMessage.memory_table
NEIGHBOURS, EACH = 100, 30  # most have said little, as the planner is to know
WORDS = ("bread", "river", "piano", "attic", "cheese", "museum", "garden", "letter")
QUESTIONS = ("Which bread is it?", "Is there bread by the piano in the attic?", "Tell me")
PLANS = ("custom", "generic")
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
    """Each so often, in a chat of their own, always with the same embedding: what is asked, to the bit."""
    StandaloneChat.objects.bulk_create(StandaloneChat(user=user) for user in users)
    params = {"users": [user.pk for user in users], "text": text, "count": count, "vector": VECTOR}
    with transaction.atomic():
        bulk.defer_memory_insert()
        db.execute(SAY, params)
        db.execute(sql.SQL(REMEMBER).format(vector=db.VECTOR_SCHEMA), params)


@pytest.fixture
def alice_among_others(alice: User) -> User:
    """Alice, with embedded messages of different words."""
    runtime.reset()
    current_model.check_model(MODEL)
    say(
        [User.objects.create(username=f"neighbour {n}") for n in range(NEIGHBOURS)],
        "The bread is there.",
        EACH,
    )
    chat, luck = StandaloneChat.objects.create(user=alice), np.random.default_rng(2)
    for number in range(40):
        said = " ".join(luck.choice(WORDS, 4))
        message = StandaloneChatMessage.objects.create(
            user=alice, conversation=chat, role="user", content=said
        )
        near = VECTOR + luck.standard_normal(1536, dtype=np.float32) * np.float32(1 + number / 10)
        assert storage.store(SOURCE, message.pk, said, near, model=MODEL)
    storage.vacuum(message_tables())
    return alice


def found_by(user: User) -> list[Any]:
    """References and scores, by words and by meaning, planned for the user and for anybody."""
    found = []
    for plans, question, embedding in product(PLANS, QUESTIONS, (None, VECTOR)):
        db.execute(f"SET plan_cache_mode = force_{plans}_plan", {})
        ranked = candidates.recall(question, Scope(user.pk), embedding=embedding, model=MODEL)
        found.append([(one.ref, round(one.score, 9), one.companion) for one in ranked])
    db.execute("RESET plan_cache_mode", {})
    return found


def plans_of(user: User) -> Iterator[tuple[bool, dict[str, Any]]]:
    """Whether it is by meaning, and how the first question is recalled."""
    for plans, embedding in product(PLANS, (None, VECTOR)):
        yield (
            embedding is not None,
            plan_of(user, QUESTIONS[1], embedding=embedding, model=MODEL, plans=plans),
        )


def blocks(plan: dict[str, Any]) -> int:
    """Pages of 8 kB that were read, from memory or not."""
    return int(plan["Plan"]["Shared Hit Blocks"] + plan["Plan"]["Shared Read Blocks"])


@pytest.mark.parametrize("many", MANY)
def test_nobody_else_finds_anything_else_or_reads_more(
    many: int, alice_among_others: User, bob: User
) -> None:
    found, read = found_by(alice_among_others), list(plans_of(alice_among_others))
    assert all(map(len, found[:2]))
    say([bob], "bread " * 20, many)
    assert found_by(alice_among_others) == found  # before any statistics tell of it
    storage.vacuum(message_tables())
    assert found_by(alice_among_others) == found
    for (_, before), (_, after) in zip(read, plans_of(alice_among_others), strict=True):
        for tables in (MEMORIES, MESSAGES):
            assert rows_read(after["Plan"], tables) <= rows_read(before["Plan"], tables)
        assert blocks(after) <= 2 * blocks(before) + 100  # indexes have a level more


@pytest.mark.parametrize("many", MANY)
def test_their_own_recall_reads_little_and_finds_what_else_they_said(
    many: int, alice_among_others: User, bob: User
) -> None:
    say([bob], "bread " * 20, many)
    chat = StandaloneChat.objects.create(user=bob)
    said = StandaloneChatMessage.objects.create(
        user=bob, conversation=chat, role="user", content="A piano, an attic."
    )
    storage.vacuum(message_tables())
    for by_meaning, plan in plans_of(bob):
        # The word's postings up to the cap, and the other message. By meaning all the user's signs are compared, from
        # their index or, where most of the table is theirs, with it; then a hundred messages, and those around seeds.
        signs = by_meaning * (
            many + NEIGHBOURS * EACH + 2 * 7 * (candidates.WORD_SEEDS + candidates.CODES)
        )
        assert rows_read(plan["Plan"], MEMORIES) <= candidates.MAX_TERM_MESSAGES + 100 + signs
        assert rows_read(plan["Plan"], MESSAGES) <= 2 * 7 * (
            candidates.WORD_SEEDS + candidates.CODES
        )
        assert blocks(plan) <= 500 + by_meaning * (2_000 + 60 * many // 1_000)
    found = candidates.recall(QUESTIONS[1], Scope(bob.pk), embedding=None)
    assert found[0].ref == SOURCE.pack_ref(said.pk)
