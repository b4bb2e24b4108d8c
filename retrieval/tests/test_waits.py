"""Index builds that wait for old transactions: they say so, outlast timeouts and clean up."""

import signal
import subprocess
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
import pytest

from tests.databases import Database
from tests.support import PATIENCE_S, wait_for

pytestmark = pytest.mark.newest_schema
SECRET = "what a user wrote"
INDEXES = "SELECT relname, indisvalid FROM pg_index JOIN pg_class ON oid = indexrelid"
CREATE = """
    CREATE INDEX CONCURRENTLY {} ON standalone_chat_messages
    USING hnsw (embedding vector_cosine_ops)
"""
HNSW = {"idx_standalone_messages_embedding": True, "idx_chat_messages_embedding_user": True}


def vector_indexes(database: Database) -> dict[str, bool]:
    """The HNSW indexes and what builds left of them: whether each is valid."""
    return {name: valid for name, valid in database.run(INDEXES) if name.startswith("idx_")}


@contextmanager
def old_snapshot(database: Database, *statements: str) -> Iterator[psycopg.Connection]:
    """A transaction of the application "report" that stays open."""
    with psycopg.connect(f"{database.url}&application_name=report") as session:
        session.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        session.execute(f"SELECT '{SECRET}'")
        for statement in statements:
            session.execute(statement)
        yield session


def read_until_waiting(process: "subprocess.Popen[str]") -> str:
    """The output up to the first line that says whom the process waits for."""
    assert process.stdout
    lines = []
    for line in process.stdout:
        lines.append(line)
        if "for the transaction of" in line:
            return line
    raise AssertionError("".join(lines))


def expected(session: psycopg.Connection) -> str:
    return (
        f" s for the transaction of report {session.info.backend_pid} (idle in transaction, since "
    )


@pytest.fixture
def impatient(database: Database) -> Iterator[Database]:
    """A database at 0002_embedding; its role may run no statement for longer than a second."""
    database.start_at("0002_embedding")
    role = f"impatient_{database.name}"
    database.run(f"DROP ROLE IF EXISTS {role}")
    database.run(
        f"CREATE ROLE {role} LOGIN IN ROLE verse; ALTER ROLE {role} SET statement_timeout = '1s'; "
        f"ALTER ROLE {role} SET lock_timeout = '900ms'; GRANT ALL ON SCHEMA public TO {role}; "
        f"ALTER ROLE {role} SET idle_in_transaction_session_timeout = '1s'"
    )
    owner, database.url = database.url, database.url.replace("user=verse", f"user={role}")
    yield database
    database.url = owner
    database.run(f"REASSIGN OWNED BY {role} TO verse; DROP OWNED BY {role}; DROP ROLE {role}")


def test_migrate_outlasts_timeouts_and_says_whom_it_waits_for(impatient: Database) -> None:
    with old_snapshot(impatient) as session:
        session.execute("SET idle_in_transaction_session_timeout = 0")
        process = impatient.start_migrate("chat", "0004_vector_indexes")
        line = read_until_waiting(process)
        assert expected(session) in line
        session.rollback()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert SECRET not in line + out
    assert vector_indexes(impatient) == HNSW


@pytest.mark.soak
def test_rag_index_outlasts_timeouts_and_says_whom_it_waits_for(impatient: Database) -> None:
    impatient.migrate("chat")
    with old_snapshot(impatient) as session:
        session.execute("SET idle_in_transaction_session_timeout = 0")
        process = impatient.start("rag_index", "rebuild", "--table", "chat_messages", merged=True)
        line = read_until_waiting(process)
        assert expected(session) in line
        session.rollback()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert SECRET not in line + out
    assert vector_indexes(impatient) == HNSW


@pytest.mark.soak
def test_the_way_back_says_whom_it_waits_for(database: Database) -> None:
    database.start_at("0004_vector_indexes")
    with old_snapshot(database, "SELECT FROM chat_messages") as session:
        process = database.start_migrate("chat", "0002_embedding")
        assert expected(session) in read_until_waiting(process)
        session.rollback()
    out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0, out
    assert vector_indexes(database) == {}


def test_migrate_waits_for_a_pasted_build_and_keeps_its_index(database: Database) -> None:
    database.start_at("0002_embedding")
    name = "idx_standalone_messages_embedding"
    oid = f"SELECT '{name}'::regclass::oid"
    pasted = threading.Thread(target=database.run, args=(CREATE.format(name),))
    with old_snapshot(database, "LOCK TABLE standalone_chat_messages IN ROW EXCLUSIVE MODE"):
        pasted.start()
        wait_for(lambda: vector_indexes(database) == {name: False})
        built = database.run(oid)
        process = database.start_migrate("chat", "0004_vector_indexes")
        assert process.stdout
        assert any(f"another session builds {name}" in line for line in process.stdout)
    out, _ = process.communicate(timeout=PATIENCE_S)
    pasted.join()
    assert process.returncode == 0, out
    assert vector_indexes(database) == HNSW
    assert database.run(oid) == built


@pytest.mark.parametrize(
    "how", [pytest.param(signal.SIGINT, marks=pytest.mark.soak), signal.SIGTERM]
)
def test_an_interrupted_migrate_leaves_no_invalid_index(
    how: signal.Signals, database: Database
) -> None:
    database.start_at("0002_embedding")
    with old_snapshot(database):
        process = database.start_migrate("chat")
        read_until_waiting(process)
        process.send_signal(how)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 128 + how
    assert "Traceback" not in out
    assert "interrupted; run migrate again" in out
    assert vector_indexes(database) == {}
    database.migrate("chat", "0004_vector_indexes")
    assert vector_indexes(database) == HNSW


@pytest.mark.soak
def test_a_leftover_that_is_held_is_named_and_removed_later(database: Database) -> None:
    database.start_at("0002_embedding")
    with old_snapshot(database, "SELECT FROM standalone_chat_messages"):
        process = database.start_migrate("chat")
        read_until_waiting(process)
        process.send_signal(signal.SIGTERM)
        out, _ = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143
    name = "idx_standalone_messages_embedding"
    assert f"{name}: what the build left could not be removed (LockNotAvailable)" in out
    assert vector_indexes(database) == {name: False}
    database.migrate("chat", "0004_vector_indexes")
    assert vector_indexes(database) == HNSW
