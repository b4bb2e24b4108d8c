"""rag_index as a process: rebuild, drop and create under traffic, killed, two at once."""

import json
import os
import pty
import signal
import subprocess
import sys
import termios
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
import pytest
from django.core.management import execute_from_command_line
from pytest_django import DjangoDbBlocker

from retrieval.management.operator_command import NOT_MIGRATED
from tests.databases import Database, fill_with_vectors, wait_for_build
from tests.support import PATIENCE_S, ROOT, clean_environment

pytestmark = pytest.mark.newest_schema
NAMES = ("idx_standalone_messages_embedding", "idx_chat_messages_embedding_user")
STATE = """
    SELECT c.relname, i.indisvalid, c.reloptions
    FROM pg_index i JOIN pg_class c ON c.oid = i.indexrelid JOIN pg_am a ON a.oid = c.relam
    WHERE a.amname = 'hnsw' ORDER BY 1 DESC
"""
BUSY = "another rag_index or migrate is running: let it finish, or stop it first"
DEFAULT_OPTIONS = ["m=16", "ef_construction=64"]
# Slow enough that the test can do something during the build.
BY_ONE_PROCESS = "-c max_parallel_maintenance_workers=0"
NEAREST = """
    SELECT count(*) FROM (SELECT id FROM chat_messages ORDER BY embedding <=> (
        SELECT embedding FROM chat_messages ORDER BY id LIMIT 1 OFFSET 10) LIMIT 5) x
"""


@pytest.fixture(scope="module")
def original(
    django_db_setup: None, django_db_blocker: DjangoDbBlocker, worker_id: str
) -> Iterator[Database]:
    """Both tables with vectors, and indexes on them."""
    with django_db_blocker.unblock():
        database = Database(f"indexed_{worker_id}")
        database.start_at("0005_memory")
        database.run(
            "INSERT INTO embedding_models (name, current) VALUES ('text-embedding-3-small', true)"
        )
        assert database.command("rag_index", "drop", "hnsw").returncode == 0
        fill_with_vectors(database)
        assert database.command("rag_index", "create", "hnsw").returncode == 0
        database.migrate()
        yield database
        database.drop()


@pytest.fixture
def filled(
    original: Database, django_db_blocker: DjangoDbBlocker, worker_id: str
) -> Iterator[Database]:
    """A copy of ``original``."""
    with django_db_blocker.unblock():
        database = Database(f"copy_{worker_id}", template=original.name)
        yield database
        database.drop()


def state(database: Database) -> list[tuple[Any, ...]]:
    """Every HNSW index: name, whether it is valid, its options."""
    return database.run(STATE)


def default_state() -> list[tuple[Any, ...]]:
    """Both indexes as migrate creates them."""
    return [(name, True, DEFAULT_OPTIONS) for name in NAMES]


def test_rebuild_gives_valid_indexes_of_the_same_names(filled: Database) -> None:
    before = filled.run("SELECT relfilenode FROM pg_class WHERE relname = ANY (%s)", list(NAMES))
    done = filled.command("rag_index", "rebuild", "--m", "8", "--ef-construction", "40", "--json")
    assert done.returncode == 0, done.stderr
    assert state(filled) == [(name, True, ["m=8", "ef_construction=40"]) for name in NAMES]
    assert not set(before) & set(
        filled.run("SELECT relfilenode FROM pg_class WHERE relname = ANY (%s)", list(NAMES))
    )
    reports = json.loads(done.stdout)["indexes"]
    assert [(report["name"], report["rows"], report["valid"]) for report in reports] == [
        (name, 2_000, True) for name in NAMES
    ]
    assert filled.run(NEAREST) == [(5,)]
    assert filled.command("rag_index", "rebuild", "--table", "chat_messages").returncode == 0
    assert state(filled)[1] == (NAMES[1], True, DEFAULT_OPTIONS)
    assert state(filled)[0][2] == ["m=8", "ef_construction=40"]


@pytest.mark.soak
def test_rebuild_announces_its_needs_and_shows_progress(filled: Database) -> None:
    done = filled.process(
        "rag_index", "rebuild", "--table", "chat_messages", PGOPTIONS="-c maintenance_work_mem=12MB"
    )
    lines = done.stdout.splitlines()
    assert lines[0].startswith(
        f"{NAMES[1]}: 2,000 rows; about 16 MB of disk, besides the present 1"
    )
    assert lines[0].endswith("What is free cannot be seen from here: look on the server")
    assert (
        "maintenance_work_mem is 13 MB; faster, if the server has the memory: PGOPTIONS="
        in lines[1]
    )
    assert any(
        "building index: loading tuples, " in line and "/2,000 rows (" in line for line in lines[2:]
    ), lines
    assert lines[-1].startswith(f"{NAMES[1]}: built in ")
    assert lines[-1].endswith(" MB, m=16, ef_construction=64")


def test_reads_and_writes_go_on_during_builds(filled: Database) -> None:
    waits: list[float] = []
    ended = threading.Event()

    def write() -> None:
        with psycopg.connect(filled.url, autocommit=True) as session:
            while not ended.is_set():
                began = time.monotonic()
                session.execute(
                    "UPDATE chat_messages SET embedding = embedding"
                    " WHERE id = (SELECT max(id) FROM chat_messages)"
                )
                session.execute(
                    "SELECT count(*) FROM (SELECT FROM chat_messages ORDER BY id DESC LIMIT 5) x"
                )
                waits.append(time.monotonic() - began)
                time.sleep(0.01)

    writer = threading.Thread(target=write)
    writer.start()
    try:
        for arguments in (["rebuild", "--m", "8"], ["drop", "hnsw"], ["create", "hnsw"]):
            done = filled.command("rag_index", *arguments)
            assert done.returncode == 0, done.stderr
    finally:
        ended.set()
        writer.join()
    assert len(waits) > 20
    assert max(waits) < 0.5  # docs/promises.md, Zero downtime
    assert state(filled) == default_state()


@pytest.mark.parametrize(
    "how", [signal.SIGKILL, signal.SIGINT, pytest.param(signal.SIGTERM, marks=pytest.mark.soak)]
)
def test_an_interrupted_rebuild_cleans_up_after_a_kill_the_next_does(
    filled: Database, how: signal.Signals
) -> None:
    process = filled.start(
        "rag_index", "rebuild", "--table", "chat_messages", settings={"PGOPTIONS": BY_ONE_PROCESS}
    )
    wait_for_build(filled)
    time.sleep(0.2)
    process.send_signal(how)
    _, err = process.communicate(timeout=PATIENCE_S)
    if how != signal.SIGKILL:
        assert process.returncode == 128 + how
        assert err == (
            "CommandError: interrupted;"
            " run rag_index rebuild again, it removes what may be left of an index\n"
        )
        assert state(filled) == default_state()
    else:
        assert (f"{NAMES[1]}_ccnew", False) in [row[:2] for row in state(filled)]
    assert (NAMES[1], True, DEFAULT_OPTIONS) in state(filled)  # the old one serves
    again = filled.command("rag_index", "rebuild", "--table", "chat_messages")
    assert again.returncode == 0, again.stderr
    assert state(filled) == default_state()


def test_rebuild_repairs_an_invalid_index(filled: Database) -> None:
    filled.run(f"UPDATE pg_index SET indisvalid = false WHERE indexrelid = '{NAMES[0]}'::regclass")
    assert f"{NAMES[0]}" in filled.command("rag_status").stdout.split("INVALID")[0].splitlines()[-1]
    done = filled.command("rag_index", "rebuild", "--table", "standalone_chat_messages")
    assert (done.returncode, "INVALID" in filled.command("rag_status").stdout) == (0, False), (
        done.stderr
    )
    assert state(filled) == default_state()


@pytest.mark.soak
def test_indexes_with_other_names_are_left_alone(filled: Database) -> None:
    filled.run(
        "CREATE INDEX mine ON chat_messages USING hnsw (embedding vector_l2_ops) WHERE false"
    )
    filled.run("UPDATE pg_index SET indisvalid = false WHERE indexrelid = 'mine'::regclass")
    assert filled.command("rag_index", "rebuild").returncode == 0
    assert ("mine", False) in [row[:2] for row in state(filled)]


@pytest.mark.soak
def test_a_dropped_index_stays_away_until_it_is_created_again(filled: Database) -> None:
    assert filled.command("rag_index", "drop", "hnsw").stdout.splitlines() == [
        f"{name} is dropped" for name in NAMES
    ]
    assert filled.command("rag_index", "drop", "hnsw").returncode == 0  # nothing to do
    filled.migrate()
    assert state(filled) == []
    status = json.loads(filled.command("rag_status", "--json").stdout)
    assert [index["name"] for index in status["indexes"] if index["missing"]] == list(NAMES)
    assert filled.command("rag_index", "create", "hnsw").returncode == 0
    assert state(filled) == default_state()
    again = filled.command("rag_index", "create", "hnsw")
    assert (
        again.stdout.splitlines()[0]
        == f"{NAMES[0]} exists and is valid; rag_index rebuild builds it again"
    )


@pytest.mark.soak
def test_migrating_back_works_without_the_indexes(database: Database) -> None:
    database.start_at("0001_initial")
    database.migrate("chat")
    database.add_message("Kept.")
    database.run(f"DROP INDEX {NAMES[0]}")
    assert database.command("rag_index", "drop", "hnsw", "--table", "chat_messages").returncode == 0
    database.migrate("chat", "0001_initial")
    assert database.run("SELECT content FROM chat_messages") == [("Kept.",)]
    database.migrate("chat")
    assert state(database) == default_state()


@pytest.mark.soak
def test_a_second_rag_index_is_refused_and_migrate_waits(filled: Database) -> None:
    with psycopg.connect(filled.url) as session:
        session.execute("DELETE FROM chat_messages WHERE false")  # which the build waits for
        process = filled.start("rag_index", "rebuild", "--table", "chat_messages")
        wait_for_build(filled)
        second = filled.command("rag_index", "rebuild")
        assert (second.returncode, second.stderr) == (
            1,
            f"CommandError: {BUSY}\n",
        )
        migrating = filled.start_migrate("chat")
        assert migrating.stdout
        waits = "another migrate is running, or a rag_index: waiting for it"
        assert any(waits in line for line in migrating.stdout)
        session.rollback()
    migrating.communicate(timeout=PATIENCE_S)
    assert migrating.returncode == 0
    process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 0
    assert state(filled) == default_state()


@pytest.mark.soak
def test_a_build_by_someone_else_is_left_alone(filled: Database) -> None:
    with busy(filled, f"REINDEX INDEX CONCURRENTLY {NAMES[0]}"):
        wait_for_build(filled)
        done = filled.command("rag_index", "rebuild")
        error = (
            "an index of standalone_chat_messages is being built: let it finish, or stop it first"
        )
        assert (done.returncode, done.stderr) == (1, f"CommandError: {error}\n")
    assert state(filled) == default_state()


@contextmanager
def busy(database: Database, statement: str) -> Iterator[None]:
    """The statement runs in a thread."""
    thread = threading.Thread(target=database.run, args=(statement,))
    thread.start()
    try:
        yield
    finally:
        thread.join()


@pytest.mark.soak
def test_on_a_terminal_a_rebuild_shows_a_bar(filled: Database) -> None:
    ours, theirs = pty.openpty()
    termios.tcsetwinsize(theirs, (24, 120))  # a bar in a window without a width is empty
    process = subprocess.Popen(
        [sys.executable, "manage.py", "rag_index", "rebuild"],
        cwd=ROOT, stdout=theirs, stderr=theirs,
        env=clean_environment(DATABASE_URL=filled.url, SECRET_KEY="test", TERM="xterm"),
    )  # fmt: skip
    os.close(theirs)
    shown = b""
    while True:
        try:
            part = os.read(ours, 65536)
        except OSError:  # on Linux: the other side is closed
            break
        shown += part
    os.close(ours)
    assert process.wait(PATIENCE_S) == 0
    assert b"%|" in shown
    assert b"/2000" in shown


BAD = {
    ("rebuild", "--m", "1"): "--m: '1' is not a whole number from 2 to 100",
    ("rebuild", "--m", "101"): "--m: '101' is not a whole number from 2 to 100",
    ("rebuild", "--m", "many"): "--m: 'many' is not a whole number from 2 to 100",
    (
        "rebuild",
        "--ef-construction",
        "3",
    ): "--ef-construction: '3' is not a whole number from 4 to 1000",
    (
        "rebuild",
        "--ef-construction",
        "1001",
    ): "--ef-construction: '1001' is not a whole number from 4 to 1000",
    (
        "rebuild",
        "--m",
        "33",
    ): "--ef-construction must be at least twice --m: 66 or more; see rag_index --help",
    ("rebuild", "--table", "users"): "--table: invalid choice: 'users'",
    ("rebuild", "hnsw"): "say rebuild, drop hnsw, or create hnsw; see rag_index --help",
    ("drop",): "say rebuild, drop hnsw, or create hnsw; see rag_index --help",
    ("drop", "ivfflat"): "invalid choice: 'ivfflat'",
    (): "the following arguments are required: action",
}


@pytest.mark.parametrize(("arguments", "words"), BAD.items())
def test_wrong_usage_exits_2_and_says_what_is_allowed(
    arguments: tuple[str, ...], words: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "rag_index", *arguments])
    assert ended.value.code == 2
    assert words in capsys.readouterr().err


def test_without_memory_it_says_to_migrate(database: Database) -> None:
    database.start_at("0001_initial")
    for arguments in (["rag_index", "rebuild"], ["rag_index", "drop", "hnsw"], ["rag_status"]):
        done = database.command(*arguments)
        expected = f"CommandError: {NOT_MIGRATED}\n"
        assert (done.returncode, done.stderr) == (1, expected)


@pytest.mark.soak
def test_one_process_builds_if_shared_memory_is_too_small(filled: Database) -> None:
    more_than_there_is = "-c maintenance_work_mem=2000GB"
    done = filled.process(
        "rag_index", "rebuild", "--table", "chat_messages", PGOPTIONS=more_than_there_is
    )
    assert done.returncode == 0, done.stderr
    assert state(filled) == default_state()
