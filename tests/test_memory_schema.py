"""Memory's migration: from every earlier state to the current schema, with recall, and back."""

import json
from collections.abc import Iterator
from hashlib import sha256
from typing import Any

import numpy as np
import psycopg
import pytest
from django.db import connection

from fake_openai.vectors import vector_of
from retrieval.recall import older_schema
from retrieval.recall.candidates import Scope
from retrieval.recall.question import extract_question
from retrieval.recall.ranking import rank
from retrieval.schema.operations import MESSAGE_TABLES
from retrieval.schema.statements import CURRENT, CURRENT_RECALL, CURRENT_TRIGGERS, compose
from tests import old_schemas
from tests.databases import Database
from tests.old_schemas import MODEL, RECORDED, WITHOUT_BACKFILL, add_old_memory, add_samples
from tests.support import ROOT

pytestmark = pytest.mark.django_db
CATALOG = (ROOT / "tests" / "catalog.sql").read_text()
MIGRATIONS = {path.stem for path in (ROOT / "chat" / "migrations").glob("0*.py")}
SQL = ROOT / "chat" / "migrations" / "sql"
MESSAGES = """
    SELECT 'passage', id, user_id, passage_id, role, content, created_at FROM chat_messages
    UNION ALL
    SELECT 'chat', id, user_id, chat_id, role, content, created_at FROM standalone_chat_messages
    ORDER BY 1, 2
"""


def catalog(database: Database) -> set[tuple[Any, ...]]:
    """Everything that the database's schema consists of."""
    return set(database.run(CATALOG))


def current_catalog(database: Database) -> set[tuple[Any, ...]]:
    """The catalog that the current schema's files make, on top of 0004."""
    database.start_at("0004_vector_indexes")
    statements = compose(connection, CURRENT) + compose(connection, CURRENT_RECALL)
    for table in MESSAGE_TABLES:
        statements += compose(connection, CURRENT_TRIGGERS, table)
    for statement in statements:
        database.run(statement)
    return catalog(database)


@pytest.fixture(scope="module")
def current(django_db_setup: None, django_db_blocker: Any, worker_id: str) -> Iterator[Any]:
    with django_db_blocker.unblock():
        database = Database(f"current_{worker_id}")
        yield current_catalog(database)
        database.drop()


def test_the_migrations_make_the_current_schema(database: Database, current: Any) -> None:
    database.migrate("chat")
    assert catalog(database) ^ current == set()


@pytest.mark.parametrize("state", RECORDED)
def test_an_upgrade_makes_the_current_schema(state: str, database: Database, current: Any) -> None:
    database.start_at("0004_vector_indexes")
    add_old_memory(database.run, state)
    database.migrate("chat")
    assert catalog(database) ^ current == set()
    recorded = database.run("SELECT name FROM django_migrations WHERE app = 'chat'")
    assert {name for (name,) in recorded} == MIGRATIONS


def test_an_upgrade_of_the_first_step_alone_makes_the_current_schema(
    database: Database, current: Any
) -> None:
    database.start_at("0002_embedding")
    add_old_memory(database.run, "0008_forgetting")
    database.run(WITHOUT_BACKFILL)
    database.migrate("chat")
    assert catalog(database) ^ current == set()


def test_migrating_twice_changes_nothing(database: Database, current: Any) -> None:
    database.migrate("chat")
    database.run("DELETE FROM django_migrations WHERE app = 'chat' AND name >= '0005_memory'")
    database.migrate("chat")
    assert catalog(database) ^ current == set()


def test_the_files_of_migrations_never_change() -> None:
    """A change of the schema is another migration with files of its own."""
    lines = (SQL / "sha256sums").read_text().splitlines()
    frozen = {name: digest for digest, name in map(str.split, lines)}
    files = {path.name: sha256(path.read_bytes()).hexdigest() for path in SQL.glob("*.sql")}
    assert files == frozen


@pytest.fixture
def upgradable(database: Database) -> Database:
    """The sample conversations in a database of the last state before 0005_memory."""
    database.start_at("0004_vector_indexes")
    add_old_memory(database.run, "0008_forgetting")
    # New statistics would change the plan, and so which of equally near messages are candidates.
    for table in ("message_memories", "chat_messages", "standalone_chat_messages"):
        database.run(f"ALTER TABLE {table} SET (autovacuum_enabled = false)")
    with psycopg.connect(database.url, autocommit=True) as session:
        user_id = add_samples(lambda sql, *values: _rows(session, sql, values))
    assert user_id == old_schemas.USER_ID
    return database


def _rows(session: psycopg.Connection[Any], sql: str, values: tuple[Any, ...]) -> list[Any]:
    cursor = psycopg.ClientCursor(session)
    cursor.execute(sql, values or None)
    return list(cursor.fetchall()) if cursor.description else []


def recalled(question: str, *, by_meaning: bool) -> dict[int, int | None]:
    """The companion of each recalled message."""
    vector = np.array(vector_of(extract_question(question), 1536), dtype=np.float32)
    scope = Scope(old_schemas.USER_ID)
    embedding, text = (vector if by_meaning else None), extract_question(question)
    # By that version's own statement: its results show that the upgrade has kept what recall reads.
    rows = older_schema.find_candidates(text, scope, embedding=embedding, model=MODEL)
    ranking = rank(rows)
    pairs = zip(ranking.refs.tolist(), ranking.companions.tolist(), strict=True)
    return {ref: companion or None for ref, companion in pairs}


def test_recall_finds_the_same_before_and_after_the_upgrade(upgradable: Database) -> None:
    """The best ten of the version that made the old schema, in another order."""
    before = json.loads((old_schemas.FOLDER / "recall_0008_forgetting.json").read_text())
    assert len(before) == 10
    upgradable.migrate("chat")
    with upgradable.connected():
        for expected in before:
            now = recalled(expected["question"], by_meaning=expected["by_meaning"])
            best = {ref: companion for ref, _, companion in expected["recalled"]}
            assert best.items() <= now.items()
            # Which of equally near messages is the last candidate is not defined.
            assert len(now) == pytest.approx(expected["count"], rel=0.1)


def test_the_way_back_keeps_every_message(upgradable: Database) -> None:
    messages = upgradable.run(MESSAGES)
    assert len(messages) > 200
    upgradable.migrate("chat")
    assert upgradable.run(MESSAGES) == messages
    upgradable.migrate("chat", "0001_initial")
    assert upgradable.run(MESSAGES) == messages
    recorded = upgradable.run("SELECT name FROM django_migrations WHERE app = 'chat'")
    assert recorded == [("0001_initial",)]
    upgradable.migrate("chat")
    assert upgradable.run("SELECT count(*) FROM message_memories") == [(0,)]


@pytest.mark.parametrize("state", RECORDED)
def test_the_way_back_needs_no_upgrade_before(state: str, database: Database) -> None:
    database.migrate("chat", "0001_initial")
    first = catalog(database)
    database.start_at("0004_vector_indexes")
    add_old_memory(database.run, state)
    database.add_message("What I said.")
    messages = database.run(MESSAGES)
    database.migrate("chat", "0001_initial")
    assert catalog(database) ^ first == set()
    assert database.run(MESSAGES) == messages


def test_the_way_back_of_text_digests_restores_the_old_index(database: Database) -> None:
    database.start_at("0020_user_writes")
    before = catalog(database)
    database.migrate("chat")
    assert catalog(database) != before
    database.migrate("chat", "0020_user_writes")
    assert catalog(database) ^ before == set()


WRITES = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', 'Does it go on?', now() FROM standalone_chats ORDER BY id LIMIT 1;
    UPDATE standalone_chat_messages SET content = 'It was edited.'
    WHERE id = (SELECT min(id) FROM standalone_chat_messages);
    DELETE FROM standalone_chat_messages WHERE id = (
        SELECT min(id) FROM standalone_chat_messages WHERE content <> 'It was edited.');
    UPDATE standalone_chat_messages SET embedding = array_fill(1, ARRAY[1536])::real[]::vector
    WHERE content = 'Does it go on?'
"""
DIFFERENT = """
    SELECT count(*) FROM message_memories p FULL JOIN standalone_chat_messages m ON p.id = m.id * 2
    WHERE coalesce(p.id, 0) & 1 = 0 AND (p.id IS NULL OR m.id IS NULL
        OR NOT p.terms @> ARRAY[content_term(m.user_id::bigint, m.content)]
        OR p.bits IS DISTINCT FROM binary_quantize(m.embedding)::bit(1536))
"""


def test_old_triggers_write_to_the_renamed_tables_until_replaced(upgradable: Database) -> None:
    """Between the first and the second transaction of 0005_memory."""
    statements = compose(connection, SQL / "0005_upgrade.sql")
    statements += compose(connection, SQL / "0005_memory.sql")
    for table in MESSAGE_TABLES:
        statements += compose(connection, SQL / "0005_functions.sql", table)
    upgradable.run(";\n".join(statements))
    upgradable.run(WRITES)
    assert upgradable.run(DIFFERENT) == [(0,)]
    unpropagated = "SELECT count(*) FROM forgotten_messages WHERE NOT tainted"
    assert upgradable.run(unpropagated) == [(2,)]
