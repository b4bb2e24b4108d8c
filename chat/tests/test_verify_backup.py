"""verify_backup with real dumps: good ones, of older schemas, cut, plain, foreign and erased."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.db import connection
from psycopg import sql
from pytest_django import DjangoDbBlocker

from chat.backup.scratch import MARK, PREFIX
from embedded_postgres.programs import bin_folder
from tests.databases import Database, database_at
from tests.support import PATIENCE_S

SCRATCH = "SELECT datname FROM pg_database WHERE starts_with(datname, %s)"
Dump = Callable[..., Path]


@pytest.fixture(autouse=True)
def programs(monkeypatch: pytest.MonkeyPatch) -> str:
    """pg_dump and pg_restore of the tests' server come first in PATH."""
    folder = str(bin_folder(connection.settings_dict["EMBEDDED"]["version"]))
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")
    return folder


@pytest.fixture(scope="module")
def filled(
    worker_id: str, django_db_setup: None, django_db_blocker: DjangoDbBlocker
) -> Iterator[Database]:
    """A database of the newest schema, with messages of alice."""
    with django_db_blocker.unblock():
        database = Database(f"backup_{worker_id}")
        database.start_at("0001_initial")
        database.migrate()
        database.add_message("The gate code is 4711.")
        yield database
        database.drop()


@pytest.fixture
def live(filled: Database, django_db_blocker: DjangoDbBlocker) -> Iterator[Database]:
    """``filled``, which must hold no restored database at the end."""
    with django_db_blocker.unblock():
        yield filled
        until = time.monotonic() + PATIENCE_S
        while filled.run(SCRATCH, PREFIX):  # another process may be verifying a backup
            assert time.monotonic() < until
            time.sleep(0.2)


@pytest.fixture
def dump(live: Database, tmp_path: Path) -> Dump:
    """Writes a dump of the live database, or of another one."""

    def write(*arguments: str, of: Database = live) -> Path:
        file = tmp_path / "verse.dump"
        form = () if "--format=plain" in arguments else ("--format=custom",)
        subprocess.run(
            ["pg_dump", *form, *arguments, f"--file={file}", f"--dbname={of.url}"], check=True
        )
        return file

    return write


def verify(live: Database, file: Path, *arguments: str) -> "subprocess.CompletedProcess[str]":
    return live.command("verify_backup", str(file), *arguments)


def refusal(live: Database, file: Path) -> str:
    """The one line of a verification that must fail."""
    done = verify(live, file)
    assert done.returncode == 1
    assert done.stdout == ""
    (line,) = done.stderr.strip().splitlines()
    return line


def test_a_backup_is_restored_and_compared(live: Database, dump: Dump) -> None:
    done = verify(live, dump(), "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report["rows"]["standalone_chat_messages"] == 1
    assert report["rows"] == report["live"]["rows"]
    assert report["migration"] == report["live"]["migration"]
    assert set(report["indexes"].values()) == {True}
    assert report["recall"] == "2 messages by words"
    assert report["erased_since"] == []


def test_a_backup_from_before_memory_passes(live: Database, dump: Dump, worker_id: str) -> None:
    old = Database(f"backup_old_{worker_id}", template=database_at("0001_initial"))
    try:
        old.add_message("An old message.")
        file = dump(of=old)
    finally:
        old.drop()
    done = verify(live, file)
    assert done.returncode == 0, done.stderr
    assert "migration chat 0001_initial" in done.stdout


def test_what_is_no_backup_is_refused(live: Database, dump: Dump, tmp_path: Path) -> None:
    assert "No such file" in refusal(live, tmp_path / "nowhere.dump")
    assert "pg_dump -Fc" in refusal(live, dump("--format=plain"))
    assert "not a backup of Verse" in refusal(live, dump("--table=django_session"))


@pytest.mark.parametrize("url", ["user:secret@host/db", "postgresql//user:secret@host/db"])
def test_a_mistyped_url_is_not_printed(url: str, live: Database, tmp_path: Path) -> None:
    refused = verify(live, tmp_path / "any.dump", "--into", url)
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--into is no database URL such as" in refused.stderr
    assert "secret" not in refused.stderr


@pytest.mark.parametrize("share", [0.5, pytest.param(0.95, marks=pytest.mark.soak)])
def test_a_cut_backup_is_refused(live: Database, dump: Dump, share: float) -> None:
    file = dump()
    os.truncate(file, int(file.stat().st_size * share))
    assert "cannot be restored" in refusal(live, file)


def test_a_missing_and_an_empty_table_are_found(live: Database, dump: Dump) -> None:
    assert "api_tokens is missing" in refusal(live, dump("--exclude-table=api_tokens"))
    empty = dump("--exclude-table-data=chat_messages")
    assert "chat_messages is empty, the live one has 1 rows" in refusal(live, empty)


def test_users_who_erased_their_data_since_are_named(
    live: Database, dump: Dump, worker_id: str
) -> None:
    file = dump()
    copy = Database(f"backup_erased_{worker_id}", template=live.name)
    try:
        assert copy.command("erase_data", "alice").returncode == 0
        assert copy.run("SELECT count(*) FROM chat_messages") == [(0,)]
        done = verify(copy, file)
        assert done.returncode == 1
        assert "erased since: alice. " in done.stderr
        assert "erase_data NAME" in done.stderr
        assert verify(copy, file, "--allow-erased").returncode == 0
        assert verify(copy, dump(of=copy)).returncode == 0
    finally:
        copy.drop()


def test_nobody_is_erased_by_a_wrong_name(live: Database) -> None:
    done = live.command("erase_data", "nobody")
    assert (done.returncode, done.stdout) == (1, "")


def test_an_old_or_missing_pg_restore_is_refused(
    live: Database, dump: Dump, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = dump()
    old = tmp_path / "pg_restore"
    old.write_text("#!/bin/sh\necho 'pg_restore (PostgreSQL) 12.3'\n")
    old.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}{os.pathsep}{os.environ['PATH']}")
    assert "pg_restore 12 is older than the server" in refusal(live, file)
    monkeypatch.setenv("PATH", str(tmp_path / "nowhere"))
    assert "pg_restore is missing" in refusal(live, file)


@pytest.mark.parametrize(
    ("sent", "code"),
    [pytest.param(signal.SIGINT, 130, marks=pytest.mark.soak), (signal.SIGTERM, 143)],
)
def test_a_signal_drops_the_scratch_database(
    live: Database, tmp_path: Path, dump: Dump, programs: str, sent: int, code: int
) -> None:
    file = dump()
    slow = tmp_path / "pg_restore"
    began = tmp_path / "began"
    slow.write_text(
        f'#!/bin/sh\n[ "$1" = --version ] && exec {programs}/pg_restore "$@"\n'
        f"touch {began}\nexec sleep 600\n"
    )
    slow.chmod(0o755)
    path = f"{tmp_path}{os.pathsep}{os.environ['PATH']}"
    process = live.start("verify_backup", str(file), settings={"PATH": path})
    until = time.monotonic() + PATIENCE_S
    while not began.exists():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.05)
    process.send_signal(sent)
    out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == code, out + err


def test_what_a_killed_run_left_is_dropped_by_the_next(live: Database, dump: Dump) -> None:
    names = {"name": sql.Identifier(f"{PREFIX}left_behind"), "mark": sql.Literal(MARK)}
    live.run(sql.SQL("CREATE DATABASE {name}").format(**names).as_string())
    live.run(sql.SQL("COMMENT ON DATABASE {name} IS {mark}").format(**names).as_string())
    done = verify(live, dump())
    assert done.returncode == 0
    assert "the backup can be restored" in done.stdout
    assert "idx_standalone_messages_embedding valid" in done.stdout
    assert not live.run("SELECT 1 FROM pg_database WHERE datname = %s", f"{PREFIX}left_behind")
