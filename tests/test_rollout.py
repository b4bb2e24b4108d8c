"""Migrations that a live database bears: killed, started twice, with the extension elsewhere, beside the old code."""

import os
import signal
import subprocess
import sys
import time

import psycopg
import pytest

from fake_openai import FakeOpenAI
from tests.databases import TABLES, Database, fill_with_vectors, wait_for_build
from tests.rehearsal import manage, old_code
from tests.support import ROOT, Server, clean_environment

INDEXES = ("idx_chat_messages_embedding_user", "idx_standalone_messages_embedding")
VALID = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid WHERE relname = ANY (%s)"


def state_of_indexes(database: Database) -> dict[str, bool]:
    """Which of the two there are, and whether each is valid."""
    return dict(database.run(VALID, list(INDEXES)))


def test_a_migrate_that_is_killed_in_the_index_build_is_repaired_by_the_next(
    database: Database,
) -> None:
    database.start_at("0002_embedding")
    fill_with_vectors(database)
    seen = set()
    for moment_s in (0.1, 0.4, 0.8, 1.2, 1.8):
        migrate = database.start_migrate("chat")
        wait_for_build(database)
        time.sleep(moment_s)
        os.kill(migrate.pid, signal.SIGKILL)
        migrate.communicate()
        seen.add(str(sorted(state_of_indexes(database).items())))
        if all(state_of_indexes(database).get(name) for name in INDEXES):
            break
    assert "False" in str(seen), seen  # at least once a build was left half-way
    database.migrate("chat")
    assert state_of_indexes(database) == dict.fromkeys(INDEXES, True)
    assert "No migrations to apply" in database.migrate("chat")


def test_two_at_once_queue_though_a_transaction_is_open(database: Database) -> None:
    database.start_at("0001_initial")
    with psycopg.connect(database.url) as held:
        held.execute("SELECT count(*) FROM chat_messages")
        both = [database.start_migrate("chat") for _ in range(2)]
        time.sleep(3)
        assert all(one.poll() is None for one in both)
        held.commit()
    said = [one.communicate(timeout=60)[0] for one in both]
    assert [one.returncode for one in both] == [0, 0], said
    assert any("another migrate is running" in one for one in said)
    assert any("trying again in 1 s; held by" in one for one in said)
    assert state_of_indexes(database) == dict.fromkeys(INDEXES, True)


def test_the_way_back_removes_all_but_the_messages_and_the_extension(database: Database) -> None:
    database.start_at("0001_initial")
    catalog = (
        "SELECT 'relation', relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace "
        "UNION SELECT 'function', proname::text FROM pg_proc p WHERE pronamespace = 'public'::regnamespace "
        "AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = p.oid AND d.deptype = 'e') "
        "UNION SELECT 'trigger', tgname::text FROM pg_trigger WHERE NOT tgisinternal "
        "UNION SELECT attrelid::regclass::text, attname::text FROM pg_attribute "
        "WHERE attrelid IN ('chat_messages'::regclass, 'standalone_chat_messages'::regclass) AND NOT attisdropped"
    )
    before = set(database.run(catalog))
    database.migrate("chat")
    assert set(database.run(catalog)) > before
    database.add_message("What I said.")
    database.migrate("chat", "0001_initial")
    assert set(database.run(catalog)) == before
    said = (
        "SELECT content FROM chat_messages UNION ALL SELECT content FROM standalone_chat_messages"
    )
    assert database.run(said) == [("What I said.",)] * 2
    assert database.run("SELECT 1 FROM pg_extension WHERE extname = 'vector'")


def test_the_columns_hold_1536_numbers_and_the_indexes_are_for_cosine(database: Database) -> None:
    database.start_at("0005_memory")
    types = "SELECT format_type(atttypid, atttypmod) FROM pg_attribute WHERE attrelid = %s::regclass AND attname = %s"
    assert [database.run(types, table, "embedding") for table in TABLES] == [
        [("vector(1536)",)]
    ] * 2
    definitions = database.run("SELECT pg_get_indexdef(indexrelid) FROM pg_index WHERE indexrelid::regclass::text = "
                               "ANY (%s) ORDER BY 1", list(INDEXES))  # fmt: skip
    assert all("USING hnsw (embedding vector_cosine_ops)" in one for (one,) in definitions)
    assert len(definitions) == 2


def test_the_extension_may_live_in_a_schema_that_no_search_path_names(database: Database) -> None:
    database.run("CREATE SCHEMA extensions; CREATE EXTENSION vector SCHEMA extensions")
    database.run(f"ALTER DATABASE {database.name} SET search_path = public")
    database.start_at("0001_initial")
    assert "pgvector" in manage(database.url, "enable_vector", "--check")
    database.migrate("chat")
    database.add_message("The bread was made with honey.")
    with FakeOpenAI() as fake:
        values = {
            "DATABASE_URL": database.url, "LLM_BASE_URL": fake.base_url, "OPENAI_BASE_URL": fake.base_url,
            "OPENAI_API_KEY": "sk-test",
        }  # fmt: skip
        server = Server(values)
        try:
            client = server.client(
                manage(database.url, "create_token", "alice").strip().splitlines()[-1]
            )
            chat = client.post("/api/chats/", json={}).json()["id"]
            turn = client.post(
                f"/api/chats/{chat}/messages/", json={"content": "What was the bread made with?"}
            )
            assert "honey" in str(turn.json()["context"])
            found = client.get("/api/memory/search/", params={"q": "bread with honey"}).json()
            assert found["mode"] == "hybrid"
            assert "ERROR" not in server.log
        finally:
            server.end()
    assert database.run("SELECT DISTINCT extensions.vector_dims(embedding) FROM standalone_chat_messages "
                        "WHERE embedding IS NOT NULL") == [(1536,)]  # fmt: skip
    database.migrate("chat", "0001_initial")
    assert database.run("SELECT count(*) FROM standalone_chat_messages")[0][0] >= 3


def test_what_the_old_code_writes_on_the_new_schema_is_recalled_by_words_at_once(
    database: Database,
) -> None:
    database.start_at("0005_memory")
    token = manage(database.url, "create_token", "alice").strip().splitlines()[-1]
    with old_code() as folder, FakeOpenAI() as fake:
        values = {"DATABASE_URL": database.url, "LLM_BASE_URL": fake.base_url}
        old, new = Server(dict(values), root=folder), Server(values | {"EMBEDDINGS": "none"})
        try:
            client = old.client(token)
            chat = client.post("/api/chats/", json={}).json()["id"]
            said = client.post(
                f"/api/chats/{chat}/messages/", json={"content": "My cat Muffin sleeps all day."}
            )
            assert said.status_code == 201
            found = (
                new.client(token)
                .get("/api/memory/search/", params={"q": "Which cat sleeps?"})
                .json()
            )
            assert found["mode"] == "lexical"
            assert "My cat Muffin sleeps all day." in [one["content"] for one in found["results"]]
            changed = f"/api/chats/{chat}/messages/{said.json()['user_message']['id']}/"
            assert (
                client.patch(changed, json={"content": "My cat is called Pepper."}).status_code
                == 200
            )
            again = new.client(token).get("/api/memory/search/", params={"q": "Muffin"}).json()
            assert not any(
                one["role"] == "user" and "Muffin" in one["content"] for one in again["results"]
            )
            assert client.delete(f"/api/chats/{chat}/").status_code == 204
            assert (
                new.client(token).get("/api/memory/search/", params={"q": "cat"}).json()["results"]
                == []
            )
        finally:
            old.end()
            new.end()


@pytest.mark.parametrize("broken", ["message_memories", "embedding_models"])
def test_a_trigger_that_cannot_work_lets_the_write_pass(broken: str, database: Database) -> None:
    database.start_at("0005_memory")
    database.run(f"DROP TABLE {broken} CASCADE")
    database.add_message("Still said.")
    database.run("UPDATE chat_messages SET content = 'Said anew.'")
    assert database.run("SELECT content FROM chat_messages") == [("Said anew.",)]
    database.run("DELETE FROM chat_messages")


def test_without_the_right_to_make_the_extension_migrate_says_who_may(database: Database) -> None:
    database.start_at("0001_initial")
    role = f"limited_{database.name}"
    database.run(f"DROP ROLE IF EXISTS {role}")
    database.run(
        f"CREATE ROLE {role} LOGIN; GRANT ALL ON SCHEMA public TO {role}; "
        f"GRANT ALL ON ALL TABLES IN SCHEMA public TO {role}; GRANT ALL ON ALL SEQUENCES IN SCHEMA public TO {role}"
    )
    try:
        url = database.url.replace("user=verse", f"user={role}")
        for command in (["enable_vector"], ["migrate", "chat"], ["enable_vector", "--check"]):
            done = subprocess.run(
                [sys.executable, "manage.py", *command], cwd=ROOT, capture_output=True, text=True,
                env=clean_environment(DATABASE_URL=url, SECRET_KEY="test"),
            )  # fmt: skip
            assert done.returncode == 1
            expected = "is missing: run manage.py enable_vector" if "--check" in command else (
                f'permission denied to create extension "vector" as {role}. Let a superuser run this in the database '
                f"{database.name}: CREATE EXTENSION vector; then run enable_vector again"
            )  # fmt: skip
            assert done.stderr.strip().splitlines()[-1].endswith(expected), done.stderr
            assert "Traceback" not in done.stderr
    finally:
        database.run(f"DROP OWNED BY {role}; DROP ROLE {role}")
