"""The lookup of vectors of equal texts: what it finds, and how much of the table it reads."""

from itertools import chain
from typing import Any

import numpy as np
import pytest
from django.contrib.auth.models import User

from chat.tests.plan_support import plan_of, rows_read
from chat.tests.test_skewed_statistics import COPIED, NO_AUTOVACUUM, SKEWS, believed, drawn
from fake_openai.vectors import vector_of
from retrieval import current_model, db, storage
from retrieval.models import message_tables
from retrieval.tests.backfill_support import add_messages, query, texts

# One transaction, rolled back with all changes to statistics; autovacuum does not see its rows.
pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
MODEL = "text-embedding-3-small"
CROWD = 10_000  # rows of others, with ten terms each
ADD_CROWD = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, model)
    SELECT 1000000 + 2 * n, 1 + n %% 50, 0, now(), true,
        ARRAY(SELECT hashint8extended(n, word) FROM generate_series(1, 10) word), 20, false,
        (SELECT id FROM embedding_models)
    FROM generate_series(1, %s) n
"""
DRAWN_SKEWS = 8


def embed(user: User, contents: list[str]) -> None:
    """Add messages that have a vector by MODEL."""
    current_model.check_model(MODEL, again=True)
    rows = [
        (pk, content, np.array(vector_of(content, 1536), dtype=np.float32))
        for pk, content in zip(add_messages(user, contents), contents, strict=True)
    ]
    assert storage.store_all(message_tables()[0], rows, model=MODEL) == len(rows)


def test_only_equal_texts_of_the_same_user_have_known_vectors(alice: User, bob: User) -> None:
    embed(alice, ["Bread", "Cheese"])
    embed(bob, ["Wine"])
    add_messages(alice, ["Salt", "Bread"])
    pairs = [(alice.pk, text) for text in ("Bread", "Bread", "bread", "Wine", "Salt")]
    known = storage.known_of(pairs, model=MODEL)
    assert list(known) == [(alice.pk, "Bread")]
    assert np.allclose(known[alice.pk, "Bread"], vector_of("Bread", 1536))
    assert storage.known_of(pairs, model="another") == {}


@pytest.mark.parametrize(("count", "pending_kb"), [(1, 64), (30, 1024)], ids=["turn", "backfill"])
def test_whatever_statistics_say_known_texts_are_looked_up_by_an_index(
    count: int, pending_kb: int, alice: User
) -> None:
    """``pending_kb``: as much of the index's pending list as triggers leave, or an import."""
    embed(alice, texts(50))
    query(f"SET LOCAL gin_pending_list_limit = {pending_kb}")
    query(ADD_CROWD, CROWD)
    for statement in (NO_AUTOVACUUM, COPIED, "ANALYZE message_memories"):
        db.execute(statement, {})
    if count > 1:
        db.execute(storage.BY_INDEX_ONLY, {})
    known: dict[str, Any] = {"user": alice.pk, "content": texts(1)[0], "model": MODEL}
    if count > 1:
        known = {"users": [alice.pk] * count, "contents": texts(count), "model": MODEL}
    statement = (storage.KNOWN_OF if count > 1 else storage.KNOWN).as_string()
    for skew in chain(SKEWS, map(drawn, range(DRAWN_SKEWS))):
        for plans in ("custom", "generic"):
            with believed(skew, plans):
                plan = plan_of(statement, known)
                assert rows_read(plan, {"message_memories"}) == count, (skew, plans)
