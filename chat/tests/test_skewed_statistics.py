"""Whatever statistics say, users recall all of their own messages and none of others."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import chain, count, cycle

import numpy as np
import pytest
from django.contrib.auth.models import User
from django.db import transaction
from numpy.typing import NDArray
from rest_framework.test import APIClient

from chat.memory.recalled import MODELS
from chat.models import KINDS, Passage, StandaloneChat
from chat.tests.plan_support import reads_of
from chat.tests.support import Api
from fake_openai import FakeOpenAI
from fake_openai.vectors import vector_of
from retrieval import current_model, db
from retrieval.backfill import pending, sweep
from retrieval.models import message_tables
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall

# One transaction, rolled back with all changes to statistics; autovacuum does not see its rows.
pytestmark = [pytest.mark.django_db, pytest.mark.newest_schema]
MODEL = "text-embedding-3-small"  # the settings' own, used by searches
NAMES = ("ada", "ben", "cleo")
# Messages of each in either table: fewer than recall takes by meaning, so that all are recalled.
EACH = 12
CROWD = 1_000  # messages of another user
SAY = """
    INSERT INTO {table} (user_id, {parent}, role, content, embedding, created_at)
    SELECT %(user)s, %(parent)s, 'user', %(text)s || ' ' || n, %(vector)b::vector,
        now() - n * interval '1 minute' FROM generate_series(1, %(count)s) n
"""
# As if a word had the same hash for all users: only the condition on the user separates them.
COLLIDE = """
    UPDATE message_memories p SET terms = p.terms || ARRAY(
        SELECT h FROM auth_user u, unnest(message_terms(u.id, m.content)) h)
    FROM (SELECT id * 2 AS id, content FROM standalone_chat_messages
        UNION ALL SELECT id * 2 + 1, content FROM chat_messages) m
    WHERE m.id = p.id AND p.bits IS NOT NULL
"""
# The crowd's bits are those of a message that a person searches for.
CROWDS_BITS = """
    UPDATE message_memories p SET model = other.model, bits = other.bits
    FROM (SELECT model, bits FROM message_memories
        WHERE bits IS NOT NULL ORDER BY id DESC LIMIT 1) other
    WHERE p.bits IS NULL
"""
OWN = "SELECT id FROM message_memories WHERE user_id = %(user)s"
TABLES = "SELECT oid FROM pg_class WHERE oid IN ('message_memories'::regclass, {})".format(
    ", ".join(f"'{model._meta.db_table}'::regclass" for model in MODELS.values())
)
RELATIONS = (
    f"oid IN ({TABLES} UNION ALL SELECT indexrelid FROM pg_index WHERE indrelid IN ({TABLES}))"
)
# Autovacuum, which analyzes a table too, could wait for this transaction, and be waited for.
NO_AUTOVACUUM = """
    LOCK TABLE message_memories, standalone_chat_messages, chat_messages
    IN SHARE UPDATE EXCLUSIVE MODE
"""
# ANALYZE changes a row of pg_class in place, which no rollback undoes unless the row is a copy of
# this transaction's.
COPIED = f"UPDATE pg_class SET reltuples = reltuples WHERE {RELATIONS}"
NO_STATISTICS = f"DELETE FROM pg_statistic WHERE starelid IN ({TABLES})"


@dataclass(frozen=True)
class Person:
    """A user who asks in the words of another; ``own`` are refs of the user's own messages."""

    user: User
    asks: str
    own: frozenset[int]
    client: APIClient


def said_by(name: str) -> str:
    """The text of all messages of this user."""
    return f"The canary{name} hid the bread behind the piano in the attic"


def vector(text: str) -> NDArray[np.float32]:
    """The fake service's vector."""
    return np.array(vector_of(text, 1536), dtype=np.float32)


def say(user: User, text: str, times: int, embedding: NDArray[np.float32] | None) -> None:
    """Insert messages in a chat and about a passage."""
    parents = (
        StandaloneChat.objects.create(user=user),
        Passage.objects.create(user=user, reference="Tobit 6"),
    )
    for source, parent in zip(message_tables(), parents, strict=True):
        params = {
            "user": user.pk,
            "parent": parent.pk,
            "text": text,
            "vector": embedding,
            "count": times,
        }
        db.execute(
            SAY.replace("{table}", source.table).replace("{parent}", source.conversation), params
        )


@pytest.fixture
def people(api: Api, remembering: FakeOpenAI) -> list[Person]:
    """Each asks in the words of the next; statistics know only the crowd."""
    current_model.check_model(MODEL)
    say(User.objects.create(username="crowd"), "Cheese from a train window", CROWD, None)
    for statement in (
        NO_AUTOVACUUM,
        COPIED,
        NO_STATISTICS,
        "ANALYZE message_memories, standalone_chat_messages, chat_messages",
    ):
        db.execute(statement, {})
    users = [User.objects.create(username=name) for name in NAMES]
    for user in users:
        say(user, said_by(user.username), EACH, vector(said_by(user.username)))
    for statement in (COLLIDE, CROWDS_BITS):
        db.execute(statement, {})
    owns = [frozenset(row[0] for row in db.execute(OWN, {"user": user.pk})) for user in users]
    questions = map(said_by, (*NAMES[1:], NAMES[0]))
    return [Person(*fields) for fields in zip(users, questions, owns, map(api, users), strict=True)]


def rows(number: str, of: str = RELATIONS) -> str:
    """SQL: the planner believes in so many rows a page."""
    return f"UPDATE pg_class SET relpages = 1, reltuples = {number} WHERE {of}"


def columns(number: str, change: str = "") -> str:
    """SQL: each statistic about frequencies and order is this number."""
    slots = ", ".join(
        f"stanumbers{n} = CASE WHEN stanumbers{n} IS NOT NULL THEN "
        f"array_fill(({number})::real, ARRAY[cardinality(stanumbers{n})]) END"
        for n in range(1, 6)
    )
    return f"UPDATE pg_statistic SET {slots}{change} WHERE starelid IN ({TABLES})"


MEMORIES = "oid = 'message_memories'::regclass"
SKEWS = [
    [],  # as if only the crowd existed
    [
        NO_STATISTICS,
        f"UPDATE pg_class SET relpages = 0, reltuples = 0 WHERE {RELATIONS}",
    ],  # of empty tables
    [
        NO_STATISTICS,
        f"UPDATE pg_class SET relpages = 0, reltuples = -1 WHERE {RELATIONS}",
    ],  # no statistics
    [rows("1e9")],
    [rows("1e-4")],
    [rows("1e6"), rows("0", MEMORIES)],
    [rows("1e-4"), rows("1e9", MEMORIES)],
    [columns("1", ", stadistinct = 1")],
    [columns("0", ", stadistinct = -1")],
    [columns("0.5", ", stanullfrac = 1")],
]


def drawn(seed: int) -> list[str]:
    """Random statistics for each table, index and column."""
    distinct = (
        ", stadistinct = CASE WHEN random() < 0.5 THEN -random() ELSE 10 ^ (random() * 8) END"
    )
    change = f"{distinct}, stanullfrac = random(), stawidth = 1 + (random() * 5000)::int"
    return [
        f"SELECT setseed({seed} / 1000.0)",
        rows("10 ^ (random() * 12 - 4)"),
        columns("random()", change),
    ]


@contextmanager
def believed(skew: list[str], plans: str = "custom") -> Iterator[None]:
    """Plan everything again with these statistics, with plans ``generic`` or ``custom``."""
    with transaction.atomic():
        change = f"SET LOCAL plan_cache_mode = force_{plans}_plan"
        for statement in (*skew, change, "DISCARD PLANS"):
            db.execute(statement, {})
        yield
        transaction.set_rollback(True)


def recall_by_all(people: list[Person]) -> None:
    """Recall by words, by meaning and by both, for each."""
    for person in people:
        for asks, embedding in (
            (person.asks, None),
            ("Nothing", vector(person.asks)),
            (person.asks, vector(person.asks)),
        ):
            ranked = recall(asks, Scope(person.user.pk), embedding=embedding, model=MODEL)
            assert {row.ref for row in ranked} == person.own
            companions = {row.companion.ref for row in ranked if row.companion}
            assert companions <= person.own


def search_by(person: Person) -> int:
    """The same over the API."""
    answer = person.client.get("/api/memory/search/", {"q": person.asks, "limit": "50"}).json()
    assert answer["mode"] == "hybrid"
    references = {
        KINDS[row["source"]["kind"]].memory_table.pack_ref(row["message_id"])
        for row in answer["results"]
    }
    assert references == person.own
    assert all(f"canary{person.user.username} " in row["content"] for row in answer["results"])
    return 1


@pytest.mark.parametrize(
    ("recalls", "shapes"), [(240, 3), pytest.param(5_000, 5, marks=pytest.mark.soak)]
)
def test_whatever_statistics_say_no_other_users_row_is_recalled(
    recalls: int, shapes: int, people: list[Person]
) -> None:
    done, seen = 0, set()
    for person, skew in zip(cycle(people), chain(SKEWS, map(drawn, count())), strict=False):
        with believed(skew):
            reads = reads_of(partial(recall_by_all, people))
            done += 3 * len(people) + search_by(person)
            assert reads.whole_tables == 0
            seen.add(reads.shape)
        if done >= recalls:
            break
    assert len(seen) >= shapes  # else the skews change nothing


@pytest.mark.parametrize("skew", [*SKEWS, [NO_STATISTICS, rows("0")]])
def test_whatever_statistics_say_each_pending_row_is_read_some_times(
    skew: list[str], people: list[Person]
) -> None:
    db.execute("UPDATE message_memories SET model = NULL", {})
    table, each = message_tables()[0], CROWD + len(people) * EACH
    params = {"after": 0, "last": 2**62, "limit": 10_000, "model": None}
    next_rows = pending.next_rows_statement(table, None)
    with believed(skew):
        reads = reads_of(lambda: db.execute(next_rows, params))
        reads_of_sweep = reads_of(
            lambda: sweep.unclaimed(table, model=None, min_age_s=60.0, limit=10_000, after=0)
        )
    for read in (reads, reads_of_sweep):
        assert each <= read.of("message_memories", table.table) < 50 * each
