"""Migrations on a live database: killed, started twice, together with the old code."""

import os
import signal
import subprocess
import sys
import time
from typing import Any

import psycopg
import pytest

from fake_openai import FakeOpenAI
from tests.databases import TABLES, USERS, Database, fill_with_vectors, wait_for_build
from tests.rehearsal import manage, old_code
from tests.support import PATIENCE_S, ROOT, Server, clean_environment

INDEXES = ("idx_chat_messages_embedding_user", "idx_standalone_messages_embedding")
VALID = """
    SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid
    WHERE relname = ANY (%s)
"""
# Everything that a migration can create.
CATALOG = """
    SELECT 'relation', relname::text FROM pg_class
    WHERE relnamespace = 'public'::regnamespace
    UNION SELECT 'function', proname::text FROM pg_proc p
    WHERE pronamespace = 'public'::regnamespace
        AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e')
    UNION SELECT 'trigger', tgname::text FROM pg_trigger WHERE NOT tgisinternal
    UNION SELECT attrelid::regclass::text, attname::text FROM pg_attribute
    WHERE attrelid IN ('chat_messages'::regclass, 'standalone_chat_messages'::regclass)
        AND NOT attisdropped
"""


def state_of_indexes(database: Database) -> dict[str, bool]:
    """The existing indexes of INDEXES, and whether each is valid."""
    return dict(database.run(VALID, list(INDEXES)))


def wait_for_waiting_lock(database: Database) -> None:
    """Wait until a session waits for the lock of a table."""
    waiting = """
        SELECT 1 FROM pg_locks JOIN pg_database d ON d.oid = database
        WHERE NOT granted AND locktype = 'relation' AND datname = current_database()
    """
    end = time.monotonic() + PATIENCE_S
    while not database.run(waiting):
        assert time.monotonic() < end, "no session waits for a lock"
        time.sleep(0.05)


def test_a_migrate_killed_in_the_index_build_is_repaired_by_the_next(
    database: Database,
) -> None:
    database.start_at("0002_embedding")
    fill_with_vectors(database)
    states = set()
    for delay_s in (0.1, 0.4, 0.8, 1.2, 1.8):
        migrate = database.start_migrate("chat")
        wait_for_build(database)
        time.sleep(delay_s)
        os.kill(migrate.pid, signal.SIGKILL)
        migrate.communicate()
        states.add(str(sorted(state_of_indexes(database).items())))
        if all(state_of_indexes(database).get(name) for name in INDEXES):
            break
    assert "False" in str(states), states  # at least one build was interrupted
    database.migrate("chat")
    assert state_of_indexes(database) == dict.fromkeys(INDEXES, True)
    assert "No migrations to apply" in database.migrate("chat")


def test_two_migrates_wait_for_an_open_transaction_and_each_other(database: Database) -> None:
    database.start_at("0001_initial")
    with psycopg.connect(database.url) as held:
        held.execute("SELECT count(*) FROM chat_messages")
        both = [database.start_migrate("chat") for _ in range(2)]
        wait_for_waiting_lock(database)
        time.sleep(1)
        assert all(migrate.poll() is None for migrate in both)
        held.commit()
    outputs = [migrate.communicate(timeout=PATIENCE_S)[0] for migrate in both]
    assert [migrate.returncode for migrate in both] == [0, 0], outputs
    assert any("another migrate is running" in output for output in outputs)
    assert any("trying again in 1 s; held by" in output for output in outputs)
    assert state_of_indexes(database) == dict.fromkeys(INDEXES, True)


@pytest.mark.parametrize(
    "target", [pytest.param("0005_memory", marks=pytest.mark.soak), "0004_vector_indexes"]
)
def test_a_step_that_fails_on_a_lock_is_run_again(target: str, database: Database) -> None:
    database.start_at("0004_vector_indexes" if target == "0005_memory" else "0005_memory")
    with psycopg.connect(database.url) as held:
        held.execute("UPDATE chat_messages SET content = content; SELECT FROM chat_messages")
        held.execute("LOCK TABLE standalone_chat_messages IN ROW EXCLUSIVE MODE")
        migrate = database.start_migrate("chat", target)
        assert migrate.stdout
        tries = (line for line in migrate.stdout if "trying again in 1 s; held by" in line)
        for _ in range(2):
            assert f" {held.info.backend_pid} (idle in transaction, " in next(tries)
        held.rollback()
    out, _ = migrate.communicate(timeout=PATIENCE_S)
    assert migrate.returncode == 0, out


# Django's own indexes, in whose place 0012_message_lists builds others.
REPLACED = {
    ("relation", "chat_messages_user_id_cf3eadd8"),
    ("relation", "standalone_chat_messages_user_id_281ade96"),
}


def test_migrating_back_removes_all_but_messages_and_the_extension(database: Database) -> None:
    database.start_at("0001_initial")
    before = set(database.run(CATALOG))
    database.migrate("chat")
    assert before - set(database.run(CATALOG)) == REPLACED
    database.add_message("What I said.")
    database.migrate("chat", "0001_initial")
    assert set(database.run(CATALOG)) == before
    for table in TABLES:
        assert database.run(f"SELECT content FROM {table}") == [("What I said.",)]
    assert database.run("SELECT 1 FROM pg_extension WHERE extname = 'vector'")


def test_columns_have_1536_dimensions_and_indexes_use_cosine_distance(database: Database) -> None:
    database.start_at("0005_memory")
    types = """
        SELECT format_type(atttypid, atttypmod) FROM pg_attribute
        WHERE attrelid = %s::regclass AND attname = 'embedding'
    """
    for table in TABLES:
        assert database.run(types, table) == [("vector(1536)",)]
    definitions = """
        SELECT pg_get_indexdef(indexrelid) FROM pg_index
        WHERE indexrelid::regclass::text = ANY (%s)
    """
    indexes = [definition for (definition,) in database.run(definitions, list(INDEXES))]
    assert len(indexes) == 2
    assert all("USING hnsw (embedding vector_cosine_ops)" in index for index in indexes)


@pytest.mark.soak
def test_the_extension_may_be_in_a_schema_outside_the_search_path(database: Database) -> None:
    database.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    database.run(f"ALTER DATABASE {database.name} SET search_path = public")
    database.migrate("chat", "0001_initial")
    database.run(USERS)
    assert "pgvector" in manage(database.url, "enable_vector", "--check")
    database.migrate("chat")
    database.add_message("The bread was made with honey.")
    with FakeOpenAI() as fake:
        urls = {"LLM_BASE_URL": fake.base_url, "OPENAI_BASE_URL": fake.base_url}
        server = Server({"DATABASE_URL": database.url, "OPENAI_API_KEY": "sk-test"} | urls)
        try:
            client = server.client(token_of_alice(database))
            chat = client.post("/api/chats/", json={}).json()["id"]
            question = {"content": "What was the bread made with?"}
            turn = client.post(f"/api/chats/{chat}/messages/", json=question)
            assert "honey" in str(turn.json()["context"])
            search = client.get("/api/memory/search/", params={"q": "bread with honey"})
            assert search.json()["mode"] == "hybrid"
            assert "ERROR" not in server.log
        finally:
            server.end()
    dimensions = """
        SELECT DISTINCT extensions.vector_dims(embedding) FROM standalone_chat_messages
        WHERE embedding IS NOT NULL
    """
    assert database.run(dimensions) == [(1536,)]
    database.migrate("chat", "0001_initial")
    assert database.run("SELECT count(*) FROM standalone_chat_messages")[0][0] >= 3


@pytest.mark.soak
def test_messages_of_the_old_code_are_recalled_by_words_at_once(
    database: Database,
) -> None:
    database.start_at("0005_memory")
    token = token_of_alice(database)
    with old_code() as folder, FakeOpenAI() as fake:
        values = {"DATABASE_URL": database.url, "LLM_BASE_URL": fake.base_url}
        old, new = Server(dict(values), root=folder), Server(values | {"EMBEDDINGS": "none"})
        try:
            client = old.client(token)
            chat = client.post("/api/chats/", json={}).json()["id"]
            messages = f"/api/chats/{chat}/messages/"
            content = "My cat Muffin sleeps all day."
            turn = client.post(messages, json={"content": content})
            assert turn.status_code == 201
            memory = search(new, token, "Which cat sleeps?")
            assert memory["mode"] == "lexical"
            assert content in [result["content"] for result in memory["results"]]
            edited = f"{messages}{turn.json()['user_message']['id']}/"
            edit = client.patch(edited, json={"content": "My cat is called Pepper."})
            assert edit.status_code == 200
            results = search(new, token, "Muffin")["results"]
            of_user = [result["content"] for result in results if result["role"] == "user"]
            assert not any("Muffin" in content for content in of_user)
            assert client.delete(f"/api/chats/{chat}/").status_code == 204
            assert search(new, token, "cat")["results"] == []
        finally:
            old.end()
            new.end()


def token_of_alice(database: Database) -> str:
    """A new API token."""
    return manage(database.url, "create_token", "alice").strip().splitlines()[-1]


def search(server: Server, token: str, question: str) -> dict[str, Any]:
    """The answer of a memory search."""
    response = server.client(token).get("/api/memory/search/", params={"q": question})
    return dict(response.json())


@pytest.mark.parametrize("broken", ["message_memories", "embedding_models"])
def test_a_failing_trigger_does_not_prevent_the_write(broken: str, database: Database) -> None:
    database.start_at("0005_memory")
    database.run(f"DROP TABLE {broken} CASCADE")
    database.add_message("Still stored.")
    database.run("UPDATE chat_messages SET content = 'Edited.'")
    assert database.run("SELECT content FROM chat_messages") == [("Edited.",)]
    database.run("DELETE FROM chat_messages")


def test_without_permission_for_the_extension_migrate_says_who_has_it(database: Database) -> None:
    database.start_at("0001_initial")
    role = f"limited_{database.name}"
    database.run(f"DROP ROLE IF EXISTS {role}")
    database.run(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; "
        f"GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    )
    try:
        url = database.url.replace("user=verse", f"user={role}")
        for command in (["enable_vector"], ["migrate", "chat"], ["enable_vector", "--check"]):
            result = subprocess.run(
                [sys.executable, "manage.py", *command],
                cwd=ROOT,
                capture_output=True,
                text=True,
                env=clean_environment(DATABASE_URL=url, SECRET_KEY="test"),
            )
            assert result.returncode == 1
            if "--check" in command:
                expected = f'the extension "vector" is missing, and {role} may not create it. '
            else:
                expected = f'permission denied to create extension "vector" as {role}. '
            expected += (
                f"Let a superuser run this in the database {database.name}: "
                "CREATE EXTENSION IF NOT EXISTS vector SCHEMA public; then run enable_vector again"
            )
            assert result.stderr.strip().splitlines()[-1].endswith(expected), result.stderr
            assert "Traceback" not in result.stderr
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")
