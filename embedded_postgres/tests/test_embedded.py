"""The embedded server with real processes and real kills. Needs /proc, so Linux only."""

import fcntl
import os
import pwd
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from embedded_postgres import supervisor
from embedded_postgres.ensure_running import ROOT
from embedded_postgres.files import (
    EmbeddedServerError,
    Paths,
    account,
    check_private,
    open_private,
    try_lock,
)
from embedded_postgres.programs import bin_folder, is_closed
from embedded_postgres.tests.support import Home, kill, wait_until

OTHER_UID = pwd.getpwnam("daemon").pw_uid  # exists on every system; initdb needs a named account
KILL_DELAYS_S = (0, 0.1, 0.3, 0.5)  # after creation of the database began; it takes 0.6 s


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder open to all accounts, unlike pytest's tmp_path."""
    folder = Path(tempfile.mkdtemp(prefix="verse-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def home(top: Path) -> Iterator[Home]:
    """A home folder; its processes are killed after the test."""
    home = Home(top)
    yield home
    home.clear()


@pytest.fixture
def closed_home(tmp_path: Path) -> Iterator[Home]:
    """A home folder below one with mode 0700, like /root."""
    assert stat.S_IMODE(tmp_path.parent.stat().st_mode) == 0o700
    home = Home(tmp_path)
    yield home
    home.clear()


@pytest.mark.parametrize("version", [16, 18])
def test_a_first_start_works_in_a_path_with_spaces_and_accents(home: Home, version: int) -> None:
    user = home.user(version)
    assert user.query("SELECT current_setting('server_version_num')::int / 10000") == version
    assert user.query("SELECT current_database() || ' ' || current_user") == "verse verse"
    assert user.query("SELECT lower('Ü') || current_setting('server_encoding')") == "üUTF8"
    user.send("CREATE EXTENSION vector")
    assert user.receive() is None
    assert stat.S_IMODE(home.paths(version).data.stat().st_mode) == 0o700


def test_a_home_below_a_closed_folder_works_and_its_mode_stays(
    closed_home: Home, tmp_path: Path
) -> None:
    mode = tmp_path.stat().st_mode
    assert closed_home.user().query("SELECT 1") == 1
    assert tmp_path.stat().st_mode == mode


@pytest.mark.soak
def test_a_user_other_than_root_gets_a_separate_server(home: Home, top: Path) -> None:
    if os.geteuid() != 0:
        assert home.user().query("SELECT 1") == 1
        return
    os.chown(top, OTHER_UID, OTHER_UID)
    assert home.user(prefix=as_other_account()).query("SELECT 1") == 1
    assert home.paths().data.stat().st_uid == OTHER_UID
    # Root, who would run it as 'nobody', gets an error that names the owner.
    refused = home.command("migrate")
    assert "belongs to daemon: start as the user who made it" in refused.stderr
    # Stopped by its processes: root computes another socket folder than this user.
    home.stop()
    assert not list(Path("/tmp").glob(f"verse-{OTHER_UID}-*"))


def as_other_account() -> tuple[str, ...]:
    """Runs Python as OTHER_UID; the system's Python if ours is below a folder like /root."""
    ours_is_closed = is_closed(Path(sys.executable).resolve())
    drop = [f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups"]
    if is_closed(ROOT):
        drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ("setpriv", *drop, "/usr/bin/python3" if ours_is_closed else sys.executable)


def test_four_first_starts_at_once_give_one_server(home: Home) -> None:
    users = [home.user() for _ in range(4)]
    for user in users:
        user.send("SELECT pg_backend_pid() > 0")
    assert [user.receive() for user in users] == [True] * 4
    assert len(home.processes("/bin/postgres\0-D")) == 1
    assert len(home.processes("embedded_postgres.supervisor")) == 1


@pytest.mark.soak
def test_the_server_stops_after_its_last_user_was_killed_and_keeps_data(home: Home) -> None:
    first, second = home.user(), home.user()
    first.query("CREATE TABLE words (word text)")
    postgres = home.postgres()
    second.query("INSERT INTO words VALUES ('Biscuit')")
    assert home.postgres() == postgres
    first.kill()
    time.sleep(supervisor.IDLE_S + 1)
    assert home.processes("/bin/postgres\0-D") == [postgres]  # the second user is alive
    second.kill()
    wait_until(lambda: not home.processes(), within_s=60)
    assert not home.paths().sockets.exists()
    assert home.user().query("SELECT word FROM words") == "Biscuit"


def test_killing_the_supervisor_ends_postgres_and_the_next_user_starts_both(
    home: Home,
) -> None:
    user = home.user()
    user.query("CREATE TABLE words AS SELECT 'Biscuit' AS word")
    before = home.postgres()
    kill(home.processes("embedded_postgres.supervisor"))
    wait_until(lambda: before not in home.processes())
    assert home.user().query("SELECT word FROM words") == "Biscuit"
    assert user.query("SELECT word FROM words") == "Biscuit"
    assert home.postgres() != before
    assert len(home.processes("embedded_postgres.supervisor")) == 1


def test_a_connection_pool_works_again_after_postgres_was_killed(home: Home) -> None:
    user = home.user()
    user.query("CREATE TABLE words AS SELECT 'Biscuit' AS word")
    supervisors = home.processes("embedded_postgres.supervisor")
    for _ in range(2):
        before = home.postgres()
        home.kill_postgres()
        assert user.query("SELECT word FROM words") == "Biscuit"
        assert home.postgres() != before
    assert home.processes("embedded_postgres.supervisor") == supervisors


@pytest.mark.soak
def test_a_start_that_was_killed_does_not_block_the_next(home: Home) -> None:
    left_over: set[Path] = set()
    for delay_s in KILL_DELAYS_S:
        user = home.user()
        user.send("SELECT 1")
        wait_until(partial(home.is_creating, left_over))
        time.sleep(delay_s)
        user.kill()
        while left := home.processes():
            kill(left)
        left_over = home.unfinished()
        assert left_over or delay_s, "the first kill came before or after the creation"
        # After the longest delays the database may be complete.
        shutil.rmtree(home.paths().data, ignore_errors=True)
    assert home.user().query("SELECT 1") == 1
    assert not home.unfinished()


@pytest.mark.soak
def test_an_old_pid_file_naming_another_process_does_not_block_a_start(home: Home) -> None:
    home.user().query("SELECT 1")
    home.stop()
    assert not home.paths().sockets.exists()
    drop = [f"--reuid={account().uid}"] if os.geteuid() == 0 else []
    with subprocess.Popen(["setpriv", *drop, "sleep", "60"]) as other:
        try:
            pid_file = home.paths().data / "postmaster.pid"
            pid_file.write_text(f"{other.pid}\n{home.paths().data}\n1\n5432\n/tmp\n\n0 0\nready\n")
            assert home.user().query("SELECT 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


@pytest.mark.soak
def test_a_deleted_home_gets_a_new_server_and_the_old_one_ends(home: Home) -> None:
    user = home.user()
    user.query("SELECT 1")
    before = home.postgres()
    shutil.rmtree(home.folder, ignore_errors=True)  # its server deletes files at the same time
    assert user.query("SELECT 1") == 1
    wait_until(lambda: before not in home.processes())
    assert len(home.processes("embedded_postgres.supervisor")) == 1


@pytest.mark.parametrize("squatter", ["a link", "an open folder"])
def test_a_socket_folder_made_by_others_is_refused_in_one_line(
    home: Home, top: Path, squatter: str
) -> None:
    sockets = home.paths().sockets
    if squatter == "a link":
        sockets.symlink_to(top)
    else:
        sockets.mkdir()
        sockets.chmod(0o777)
    refused = home.command("migrate")
    assert refused.returncode == 1
    advice = "is not our private folder: remove it, or set DATABASE_URL"
    assert refused.stderr.splitlines() == [f"NoEmbeddedServerError: {sockets} {advice}"]
    assert top.exists()


def test_a_socket_folder_of_another_account_is_refused(top: Path) -> None:
    top.chmod(0o700)
    check_private(top, os.geteuid())
    with pytest.raises(EmbeddedServerError, match="not our private folder"):
        check_private(top, os.geteuid() + 1)


def test_data_of_another_version_is_refused_in_one_line(home: Home) -> None:
    data = home.paths().data
    data.mkdir(parents=True)
    os.chown(data, account().uid, -1)
    (data / "PG_VERSION").write_text("15\n")
    refused = home.command("migrate")
    message = "was made by PostgreSQL 15, not 16: move it away, or set DATABASE_URL\n"
    assert message in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


@pytest.mark.soak
def test_a_server_that_cannot_start_is_an_error_with_its_log(home: Home) -> None:
    home.user().query("SELECT 1")
    home.stop()
    (home.paths().data / "postgresql.conf").write_text("shared_buffers = 'a lot'\n")
    refused = home.command("migrate")
    assert refused.returncode == 1
    assert "PostgreSQL does not stay up; the end of" in refused.stderr
    assert 'invalid value for parameter "shared_buffers"' in refused.stderr
    assert not home.paths().sockets.exists()


@pytest.mark.soak
def test_dbshell_opens_psql_on_the_embedded_server(home: Home) -> None:
    shell = home.command(
        "dbshell", "--", "-tAc", "SELECT current_database()", "-c", r"\echo :VERSION_NUM"
    )
    name, psql = shell.stdout.splitlines()
    assert name == "verse"
    assert psql.startswith("16")  # the package's, not the system's


def test_without_the_package_the_error_says_what_to_do() -> None:
    program = "from embedded_postgres.programs import bin_folder; bin_folder(16)"
    bare = subprocess.run(
        [sys.executable, "-S", "-c", program],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert "set DATABASE_URL, or run pip install -r requirements.lock" in bare.stderr
    with pytest.raises(EmbeddedServerError, match=r"choose one of \[16, 18\]"):
        bin_folder(15)


def test_new_users_wait_while_the_supervisor_stops(top: Path) -> None:
    paths = Paths(top, 16)
    watch = supervisor.Watch(paths)
    assert not watch.is_over()
    newcomer = open_private(paths.users)
    assert try_lock(newcomer, fcntl.LOCK_SH)
    fcntl.flock(newcomer, fcntl.LOCK_UN)
    watch._idle_since = time.monotonic() - supervisor.IDLE_S
    assert watch.is_over()
    assert not try_lock(newcomer, fcntl.LOCK_SH)
    os.close(newcomer)


def test_a_long_log_is_emptied_and_stays_the_same_file(top: Path) -> None:
    paths = Paths(top, 16)
    with paths.log.open("ab", buffering=0) as log:
        log.write(b"x" * supervisor.MAX_LOG_BYTES + b"!")
        supervisor.Watch(paths).trim_log()
        log.write(b"new")
    assert paths.log.read_bytes() == b"new"
    assert paths.log.with_suffix(".log.old").stat().st_size > supervisor.MAX_LOG_BYTES
