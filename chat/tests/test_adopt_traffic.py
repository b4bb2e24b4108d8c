"""adopt_tables as a process: under traffic, killed, as the owner of the tables; then a chat."""

import os
import re
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import psycopg
import pytest

from chat.tests.old_programs import AHEAD, OldDatabase
from fake_openai import FakeOpenAI
from tests.support import PATIENCE_S, Server

# A writer that waits for longer has lost a request.
WRITER = "-c lock_timeout=1s -c statement_timeout=0 -c application_name=old-program"
INSERTS = (
    "INSERT INTO chat_messages (user_id, passage_id, role, content) VALUES (1, 1, 'user', %s)",
    "INSERT INTO standalone_chat_messages (user_id, chat_id, role, content)"  # noqa: ISC004
    " VALUES (2, 2, 'user', %s)",
    "INSERT INTO passages (user_id, reference, text) VALUES (1, 'Ruth 2', %s)",
)
LOCKING = "UPDATE standalone_chats SET title = 'Changed' WHERE id = 1"
INVALID = "SELECT indexrelid::regclass::text FROM pg_index WHERE NOT indisvalid"
HELD_BY_EDITOR = re.compile(r"standalone_chats is in use, trying again in 1 s; held by .*editor")
WAITING_FOR_REPORT = re.compile(
    r"waiting \d+ s for the transaction of report \d+ \(idle in transaction"
)
BUILDING = """
    SELECT 1 FROM pg_stat_progress_create_index
    WHERE phase LIKE 'waiting for%' AND datname = current_database()
"""


@contextmanager
def writing(old: OldDatabase, inserts: Sequence[str] = INSERTS) -> Iterator[list[str]]:
    """Insert rows all the time, as the old program; what it wrote, or why it could not."""
    ended, written = threading.Event(), list[str]()

    def write() -> None:
        with psycopg.connect(old.url, autocommit=True, options=WRITER) as session:
            while not ended.wait(0.02):
                text = f"Written {len(written)}"
                try:
                    session.execute(inserts[len(written) % len(inserts)], [text])
                except psycopg.Error as error:
                    text = repr(error)
                written.append(text)

    thread = threading.Thread(target=write, daemon=True)
    thread.start()
    try:
        yield written
    finally:
        ended.set()
        thread.join()


@contextmanager
def holding(
    old: OldDatabase, name: str, statement: str, level: psycopg.IsolationLevel
) -> Iterator[psycopg.Connection]:
    """Another session with an open transaction that has run the statement."""
    with psycopg.connect(old.url, application_name=name) as session:
        session.isolation_level = level
        session.execute("SET statement_timeout = 0")
        session.execute(statement)
        yield session


@pytest.mark.parametrize(
    ("write_s", "snapshot_s"), [(1.5, 5.0), pytest.param(3.0, 30.0, marks=pytest.mark.soak)]
)
def test_adoption_waits_for_others_and_delays_no_write(
    write_s: float, snapshot_s: float, old: OldDatabase
) -> None:
    old.install("plain")
    old.run(AHEAD)
    # With these a build would end half-way.
    old.run(f"ALTER DATABASE {old.name} SET lock_timeout = '200ms'")
    old.run(f"ALTER DATABASE {old.name} SET statement_timeout = '1s'")
    levels = psycopg.IsolationLevel
    with (
        writing(old) as written,
        holding(old, "editor", LOCKING, levels.READ_COMMITTED) as editor,
        holding(old, "report", "SELECT FROM auth_user", levels.REPEATABLE_READ) as report,
    ):
        process = old.start("adopt_tables")
        assert process.stdout
        assert process.stderr
        assert process.stdout.readline() == "correcting these differences:\n"
        started = time.monotonic()
        assert HELD_BY_EDITOR.search(process.stderr.readline())
        time.sleep(max(0.0, started + write_s - time.monotonic()))
        editor.commit()
        while not WAITING_FOR_REPORT.search(line := process.stderr.readline()):
            assert "is in use, trying again" in line
        time.sleep(max(0.0, started + snapshot_s - time.monotonic()))
        report.commit()
        _, err = process.communicate(timeout=PATIENCE_S)
    assert all(text.startswith("Written") for text in written), set(written)
    assert len(written) > 50
    assert process.returncode == 0, err
    assert old.problems() == []


@pytest.mark.soak
def test_a_program_that_gives_ids_by_itself_may_write_meanwhile(old: OldDatabase) -> None:
    old.install("loose")
    own_id = (
        "INSERT INTO chat_messages (id, user_id, passage_id, role, content)"
        " SELECT max(id) + 1, 1, 1, 'user', %s FROM chat_messages"
    )
    with writing(old, [own_id]) as written:
        done = old.adopt()
    assert (done.code, done.err) == (0, "")
    assert all(text.startswith("Written") for text in written), set(written)
    assert old.adopt().code == 0
    assert old.problems() == []


def kill_when(process: "subprocess.Popen[str]", is_time: Callable[[], bool]) -> None:
    """Kill the process with SIGKILL as soon as it is time."""
    until = time.monotonic() + PATIENCE_S
    while not is_time():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    process.communicate()


def test_a_kill_in_an_index_build_is_repaired_by_the_next_run(old: OldDatabase) -> None:
    rows = old.install("plain")
    with psycopg.connect(old.url) as report:
        report.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        report.execute("SELECT FROM auth_user")
        process = old.start("adopt_tables", merged=True)
        kill_when(process, lambda: bool(old.run(BUILDING)))
        assert old.run(INVALID) == [("passages_id_user",)]
        assert "passages: UNIQUE (id, user_id) is missing" in old.problems()
    assert old.adopt().code == 0
    assert (old.problems(), old.run(INVALID), old.rows()) == ([], [], rows)


@pytest.mark.parametrize("lines", [2, 40, pytest.param(60, marks=pytest.mark.soak)])  # of 81
def test_a_kill_at_any_line_is_repaired_by_the_next_run(lines: int, old: OldDatabase) -> None:
    rows = old.install("loose")
    process = old.start("adopt_tables")
    assert process.stdout
    output = [process.stdout.readline() for _ in range(lines)]
    kill_when(process, lambda: True)
    assert output[-1].startswith("  "), output
    assert old.problems() != []
    assert old.adopt().code == 0
    assert (old.problems(), old.rows()) == ([], rows)


def test_ctrl_c_says_how_to_go_on(old: OldDatabase) -> None:
    old.install("plain")
    with psycopg.connect(old.url) as editor:
        editor.execute("UPDATE passages SET text = 'Changed'")
        process = old.start("adopt_tables")
        assert process.stdout
        while "passages: column" not in process.stdout.readline():
            pass
        process.send_signal(signal.SIGINT)
        _, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 130
    assert err.splitlines()[-1] == "CommandError: interrupted; run it again, it goes on from here"


@pytest.fixture
def owner(old: OldDatabase, worker_id: str) -> Iterator[str]:
    """A role that owns the database and its tables, and is no superuser."""
    name = f"old_owner_{worker_id}"
    old.run(f"DROP ROLE IF EXISTS {name}")
    old.run(f"CREATE ROLE {name} LOGIN; ALTER DATABASE {old.name} OWNER TO {name}")
    old.install("plain")
    for (table,) in old.run("SELECT tablename FROM pg_tables WHERE schemaname = 'public'"):
        old.run(f"ALTER TABLE {table} OWNER TO {name}")
    yield name
    old.drop()
    with psycopg.connect(old.url.replace(f"/{old.name}?", "/postgres?"), autocommit=True) as server:
        server.execute(f"DROP ROLE {name}")


@pytest.mark.soak
def test_the_owner_of_the_tables_adopts_them(old: OldDatabase, owner: str) -> None:
    old.run("ALTER TABLE passages OWNER TO verse")
    url = old.url.replace("user=verse", f"user={owner}")
    refused = old.process("adopt_tables", DATABASE_URL=url)
    assert refused.returncode == 1
    assert f"passages: it belongs to verse, and {owner} is not a member of it" in refused.stdout
    fix = f'or, as an administrator: ALTER TABLE "passages" OWNER TO "{owner}"'
    assert fix in refused.stdout
    old.run(fix.partition(": ")[2])
    done = old.process("adopt_tables", DATABASE_URL=url)
    assert done.returncode == 0, done
    assert old.problems() == []


@pytest.mark.soak
@pytest.mark.newest_schema
def test_the_chat_works_on_adopted_tables(old: OldDatabase) -> None:
    old.install("loose")
    old.run("UPDATE chat_messages SET content = 'My dog is called Biscuit.' WHERE id = 1")
    assert old.adopt().code == 0
    old.migrate()
    with FakeOpenAI() as fake:
        urls = {"LLM_BASE_URL": fake.base_url, "OPENAI_BASE_URL": fake.base_url}
        settings = urls | {"OPENAI_API_KEY": "sk-test"}
        filled = old.process("backfill_embeddings", "--sleep", "0", **settings)
        assert filled.returncode == 0, filled
        server = Server({"DATABASE_URL": old.url} | settings)
        try:
            use_the_chat(old, server)
            assert "ERROR" not in server.log
        finally:
            server.end()


def use_the_chat(old: OldDatabase, server: Server) -> None:
    """Alice asks about an old message, in a new chat and in the old passage; bob erases."""
    tokens = (old.command("create_token", name).stdout.strip() for name in ("alice", "bob"))
    alice, bob = (server.client(token) for token in tokens)
    chat = alice.post("/api/chats/", json={"title": "Dogs"}).json()["id"]
    question = {"content": "What is my dog called?"}
    for address in (f"/api/chats/{chat}/messages/", "/api/passages/1/messages/"):
        turn = alice.post(address, json=question)
        assert (turn.status_code, turn.json()["assistant_message"]["status"]) == (201, "complete")
    context = alice.post(f"/api/chats/{chat}/messages/", json=question).json()["context"]
    assert "Biscuit" in str(context)
    assert bob.get("/api/passages/1/messages/").status_code == 404
    erased = bob.request("DELETE", "/api/memory/", json={"confirm": "bob"})
    assert erased.status_code == 200
    assert old.run("SELECT count(*) FROM chat_messages WHERE user_id = 2") == [(0,)]
    assert old.run("SELECT count(*) FROM chat_messages WHERE user_id = 1") == [(22,)]
