"""By its plans recall reads no more for a user with 20,000 messages than with 200."""

from itertools import product

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import connection

from chat.models import StandaloneChat
from chat.tests.plan_support import MEMORIES, MESSAGES, plan_of, rows_read
from retrieval.recall import candidates

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
FEW, MANY, OTHERS = 200, 20_000, 30_000
QUESTION = "Is there a river by the attic with the piano?"
# A word in every second message, one in every tenth, one in every hundredth, and one of its own.
SAY = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT %s, %s, CASE n %% 2 WHEN 0 THEN 'user' ELSE 'assistant' END,
        'Bread ' || CASE n %% 2 WHEN 0 THEN 'river ' ELSE '' END
            || CASE n %% 10 WHEN 0 THEN 'piano ' ELSE '' END
            || CASE n %% 100 WHEN 0 THEN 'attic ' ELSE '' END || md5(n::text),
        now() - n * interval '1 minute'
    FROM generate_series(1, %s) n
"""
BITS = """
    UPDATE message_memories SET model = (SELECT id FROM embedding_models WHERE current),
        bits = (SELECT string_agg(lpad(('x' || md5(id::text || k))::bit(128)::text, 128), '')
            FROM generate_series(1, 12) k)::bit(1536)
    WHERE user_id IN (%s, %s)
"""


@pytest.fixture
def people(alice: User, bob: User) -> tuple[User, User]:
    """Alice with few messages and Bob with many; recall's plan needs only the bits of vectors."""
    with connection.cursor() as cursor:
        cursor.execute("INSERT INTO embedding_models (name, current) VALUES ('a model', true)")
        for user, rows in (
            (alice, FEW),
            (bob, MANY),
            (User.objects.create(username="carol"), OTHERS),
        ):
            chat = StandaloneChat.objects.create(user=user)
            cursor.execute(SAY, [user.pk, chat.pk, rows])
        cursor.execute(BITS, [alice.pk, bob.pk])
        cursor.execute("VACUUM (ANALYZE) message_memories, standalone_chat_messages")
    return alice, bob


def test_the_rows_read_do_not_grow_with_the_user(people: tuple[User, User]) -> None:
    for embedding, plans in product((None, np.ones(1536, dtype=np.float32)), ("custom", "generic")):
        few, many = (
            plan_of(user, QUESTION, embedding=embedding, model="a model", plans=plans)
            for user in people
        )
        case = f"by meaning: {embedding is not None}, {plans=}"
        for plan in (few, many):
            assert rows_read(plan["Plan"], MESSAGES) <= 2 * 7 * (
                candidates.WORD_SEEDS + candidates.MAX_BIT_CANDIDATES
            ), case
        # A term's messages are read up to the limit; each seed and its neighbours once.
        terms = 3
        max_rows = terms * (candidates.MAX_TERM_MESSAGES + 1) + 3 * 7 * (
            candidates.WORD_SEEDS_ALONE + candidates.MAX_BIT_CANDIDATES
        )
        assert rows_read(many["Plan"], MEMORIES) <= max_rows, case
        # A hundred times the messages: bits are read from an index, 0.25 kB a message.
        assert (
            many["Plan"]["Shared Hit Blocks"]
            <= few["Plan"]["Shared Hit Blocks"] + 40 * MANY // 1000 + 9_000
        ), case
