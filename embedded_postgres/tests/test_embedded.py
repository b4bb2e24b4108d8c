"""The embedded server with real processes and real kills; Linux, since the tests look for processes in /proc."""

import fcntl
import json
import os
import pwd
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from embedded_postgres import supervisor
from embedded_postgres.server import (
    ROOT,
    EmbeddedServerError,
    Paths,
    account,
    bin_folder,
    check_private,
    is_server,
    open_private,
    read_pid_file,
    try_lock,
)

SOMEBODY = pwd.getpwnam(
    "daemon"
).pw_uid  # an account every system has; initdb wants one with a name
MOMENTS_S = (0, 0.1, 0.3, 0.5)  # into the making of the database, which takes 0.6 s
# A user of the server: Django with the pool of verse/settings.py. It answers each line of SQL with a line of JSON.
USER = """
import json, sys
from pathlib import Path
from django.conf import settings
pool = {"min_size": 0, "max_size": 2, "timeout": 5}
settings.configure(DATABASES={"default": {
    "ENGINE": "embedded_postgres", "NAME": "verse", "OPTIONS": {"pool": pool},
    "EMBEDDED": {"home": Path(sys.argv[1]), "version": int(sys.argv[2])}}})
import django
django.setup()
from django.core.management import execute_from_command_line
from django.db import connection
if sys.argv[3:]:
    execute_from_command_line(["manage.py", *sys.argv[3:]])
    sys.exit()
for sql in sys.stdin:
    with connection.cursor() as cursor:
        cursor.execute(sql)
        print(json.dumps(cursor.fetchone()[0] if cursor.description else None), flush=True)
    connection.close()  # as after each request
"""


class User:
    """A process that uses the server until its stdin closes."""

    def __init__(
        self, home: Path, version: int = 16, *, prefix: tuple[str, ...] = (sys.executable,)
    ) -> None:
        command = [*prefix, "-c", USER, str(home), str(version)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def tell(self, sql: str) -> None:
        """Send a statement without waiting for its answer."""
        assert self.process.stdin
        self.process.stdin.write(f"{sql}\n")
        self.process.stdin.flush()

    def hear(self) -> Any:
        """The first value of the next answer."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def ask(self, sql: str) -> Any:
        """The first value of a statement's first row."""
        self.tell(sql)
        return self.hear()

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.communicate()


class Place:
    """A home below a folder of ours, the users started on it, and a look at all processes there."""

    def __init__(self, top: Path) -> None:
        self.home = top / "a b" / "ü" / ".verse"
        self.users: list[User] = []

    def user(self, version: int = 16, **more: Any) -> User:
        """A new user of this place's server."""
        self.users.append(User(self.home, version, **more))
        return self.users[-1]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command with this place's server."""
        command = [sys.executable, "-c", USER, str(self.home), "16", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment())

    def paths(self, version: int = 16) -> Paths:
        """The server's files."""
        return Paths(self.home.resolve(), version)

    def postgres(self) -> int:
        """The process number of PostgreSQL; 0: none."""
        return read_pid_file(self.paths())[0]

    def unfinished(self) -> set[Path]:
        """The databases in the making, or left from there."""
        return set(self.home.glob("*.new-*"))

    def has_begun(self, earlier: set[Path]) -> bool:
        """Whether a database is in the making that is none of the earlier ones."""
        return bool(self.unfinished() - earlier)

    def kill_postgres(self) -> None:
        """SIGKILL, and wait for its end: until then its children answer, correctly."""
        postgres = self.postgres()
        kill([postgres])
        eventually(lambda: not is_server(postgres, self.paths().data))

    def processes(self, word: str = "") -> list[int]:
        """All processes that name the home or work in it, less the users; with ``word`` in their command."""
        users = [user.process.pid for user in self.users]
        found = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in found if pid not in users and self._is_here(pid, word)]

    def _is_here(self, pid: int, word: str) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            cwd = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - the folder may be deleted
        except OSError:
            return False
        return word in command and str(self.home) in command + cwd

    def stop(self) -> None:
        """Stop the server as an administrator would."""
        kill(self.processes("embedded_postgres.supervisor"), signal.SIGTERM)
        eventually(lambda: not self.processes())

    def clear(self) -> None:
        """Kill whatever is left, and remove its socket folders."""
        for user in self.users:
            user.kill()
        while left := self.processes():
            kill(left)
        for version in (16, 18):
            digest = self.paths(version).sockets.name.rpartition("-")[2]
            for sockets in Path("/tmp").glob(f"verse-*-{digest}"):
                sockets.unlink() if sockets.is_symlink() else shutil.rmtree(sockets)


def environment() -> dict[str, str]:
    """Ours and what this interpreter imports from; PGPORT is there to be ignored."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PGPORT": "6543",
        "PGHOST": "nowhere.invalid",
    }


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Signal processes, gone or not."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def eventually(holds: Callable[[], object], *, within_s: float = 10) -> None:
    """Wait until it holds."""
    deadline = time.monotonic() + within_s
    while not holds():
        assert time.monotonic() < deadline, "still not so"
        time.sleep(0.05)


@pytest.fixture
def top() -> Iterator[Path]:
    """A folder open to all accounts (pytest's tmp_path is not)."""
    folder = Path(tempfile.mkdtemp(prefix="verse-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def place(top: Path) -> Iterator[Place]:
    """A place whose processes do not outlive the test."""
    place = Place(top)
    yield place
    place.clear()


@pytest.fixture
def closed_place(tmp_path: Path) -> Iterator[Place]:
    """The same below a folder with mode 0700, as /root has."""
    assert stat.S_IMODE(tmp_path.parent.stat().st_mode) == 0o700
    place = Place(tmp_path)
    yield place
    place.clear()


@pytest.mark.parametrize("version", [16, 18])
def test_a_first_start_works_in_a_path_with_spaces_and_accents(place: Place, version: int) -> None:
    user = place.user(version)
    assert user.ask("SELECT current_setting('server_version_num')::int / 10000") == version
    assert user.ask("SELECT current_database() || ' ' || current_user") == "verse verse"
    assert user.ask("SELECT lower('Ü') || current_setting('server_encoding')") == "üUTF8"
    user.tell("CREATE EXTENSION vector")
    assert user.hear() is None
    assert stat.S_IMODE(place.paths(version).data.stat().st_mode) == 0o700


def test_a_home_below_a_closed_folder_works_and_its_mode_stays(
    closed_place: Place, tmp_path: Path
) -> None:
    mode = tmp_path.stat().st_mode
    assert closed_place.user().ask("SELECT 1") == 1
    assert tmp_path.stat().st_mode == mode


def test_a_user_who_is_not_root_has_a_server_of_their_own(place: Place, top: Path) -> None:
    if os.geteuid() != 0:
        assert place.user().ask("SELECT 1") == 1
        return
    os.chown(top, SOMEBODY, SOMEBODY)
    assert place.user(prefix=as_somebody()).ask("SELECT 1") == 1
    assert place.paths().data.stat().st_uid == SOMEBODY
    # And root, who would run it as nobody, is told so.
    refused = place.command("migrate")
    assert "belongs to daemon: start as the user who made it" in refused.stderr
    # Stopped by looking at it: root's paths are not the other user's.
    place.stop()
    assert not list(Path("/tmp").glob(f"verse-{SOMEBODY}-*"))


def as_somebody() -> tuple[str, ...]:
    """A python under another account: the system's own where ours is below a closed folder like /root."""
    ours_is_closed = supervisor._is_closed(Path(sys.executable).resolve())
    drop = [f"--reuid={SOMEBODY}", f"--regid={SOMEBODY}", "--clear-groups"]
    if supervisor._is_closed(ROOT):
        drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return ("setpriv", *drop, "/usr/bin/python3" if ours_is_closed else sys.executable)


def test_four_first_starts_at_once_give_one_server(place: Place) -> None:
    users = [place.user() for _ in range(4)]
    for user in users:
        user.tell("SELECT pg_backend_pid() > 0")
    assert [user.hear() for user in users] == [True] * 4
    assert len(place.processes("/bin/postgres\0-D")) == 1
    assert len(place.processes("embedded_postgres.supervisor")) == 1


def test_the_server_goes_with_its_last_user_though_killed_and_keeps_the_data(place: Place) -> None:
    first, second = place.user(), place.user()
    first.ask("CREATE TABLE said (word text)")
    postgres = place.postgres()
    second.ask("INSERT INTO said VALUES ('Biscuit')")
    assert place.postgres() == postgres
    first.kill()
    time.sleep(supervisor.IDLE_S + 1)
    assert place.processes("/bin/postgres\0-D") == [postgres]  # there is one user more
    second.kill()
    eventually(lambda: not place.processes(), within_s=10)
    assert not place.paths().sockets.exists()
    assert place.user().ask("SELECT word FROM said") == "Biscuit"


def test_a_killed_supervisor_takes_postgres_along_and_the_next_user_starts_both(
    place: Place,
) -> None:
    user = place.user()
    user.ask("CREATE TABLE said AS SELECT 'Biscuit' AS word")
    before = place.postgres()
    kill(place.processes("embedded_postgres.supervisor"))
    eventually(lambda: before not in place.processes())
    assert place.user().ask("SELECT word FROM said") == "Biscuit"
    assert user.ask("SELECT word FROM said") == "Biscuit"
    assert place.postgres() != before
    assert len(place.processes("embedded_postgres.supervisor")) == 1


def test_a_user_with_a_pool_goes_on_after_postgres_was_killed(place: Place) -> None:
    user = place.user()
    user.ask("CREATE TABLE said AS SELECT 'Biscuit' AS word")
    supervisors = place.processes("embedded_postgres.supervisor")
    for _ in range(2):
        before = place.postgres()
        place.kill_postgres()
        assert user.ask("SELECT word FROM said") == "Biscuit"
        assert place.postgres() != before
    assert place.processes("embedded_postgres.supervisor") == supervisors


def test_a_start_killed_in_the_middle_leaves_nothing_in_the_way(place: Place) -> None:
    left_over: set[Path] = set()
    for moment_s in MOMENTS_S:
        user = place.user()
        user.tell("SELECT 1")
        eventually(partial(place.has_begun, left_over))
        time.sleep(moment_s)
        user.kill()
        while left := place.processes():
            kill(left)
        left_over = place.unfinished()
        assert left_over or moment_s, "the first kill was not in the making of the database"
        shutil.rmtree(
            place.paths().data, ignore_errors=True
        )  # the last moments may find it finished
    assert place.user().ask("SELECT 1") == 1
    assert not place.unfinished()


def test_an_old_pid_file_that_names_another_process_is_no_obstacle(place: Place) -> None:
    place.user().ask("SELECT 1")
    place.stop()
    assert not place.paths().sockets.exists()
    drop = [f"--reuid={account().uid}"] if os.geteuid() == 0 else []
    with subprocess.Popen(["setpriv", *drop, "sleep", "60"]) as other:
        try:
            pid_file = place.paths().data / "postmaster.pid"
            pid_file.write_text(f"{other.pid}\n{place.paths().data}\n1\n5432\n/tmp\n\n0 0\nready\n")
            assert place.user().ask("SELECT 1") == 1
            assert other.poll() is None
        finally:
            other.kill()


def test_a_deleted_home_gets_a_new_server_and_the_old_one_ends(place: Place) -> None:
    user = place.user()
    user.ask("SELECT 1")
    before = place.postgres()
    shutil.rmtree(place.home)
    assert user.ask("SELECT 1") == 1
    eventually(lambda: before not in place.processes())
    assert len(place.processes("embedded_postgres.supervisor")) == 1


@pytest.mark.parametrize("squatter", ["a link", "an open folder"])
def test_a_squatted_socket_folder_is_refused_in_one_line(
    place: Place, top: Path, squatter: str
) -> None:
    sockets = place.paths().sockets
    if squatter == "a link":
        sockets.symlink_to(top)
    else:
        sockets.mkdir()
        sockets.chmod(0o777)
    refused = place.command("migrate")
    assert refused.returncode == 1
    assert refused.stderr.splitlines() == [
        f"NoEmbeddedServerError: {sockets} is not our private folder: remove it, or set DATABASE_URL"
    ]
    assert top.exists()


def test_a_socket_folder_of_somebody_else_is_refused(top: Path) -> None:
    top.chmod(0o700)
    check_private(top, os.geteuid())
    with pytest.raises(EmbeddedServerError, match="not our private folder"):
        check_private(top, os.geteuid() + 1)


def test_data_of_another_version_is_refused_in_one_line(place: Place) -> None:
    data = place.paths().data
    data.mkdir(parents=True)
    os.chown(data, account().uid, -1)
    (data / "PG_VERSION").write_text("15\n")
    refused = place.command("migrate")
    assert (
        "was made by PostgreSQL 15, not 16: move it away, or set DATABASE_URL\n" in refused.stderr
    )
    assert len(refused.stderr.splitlines()) == 1


def test_a_server_that_cannot_start_is_an_error_with_its_last_words(place: Place) -> None:
    place.user().ask("SELECT 1")
    place.stop()
    (place.paths().data / "postgresql.conf").write_text("shared_buffers = 'a lot'\n")
    refused = place.command("migrate")
    assert refused.returncode == 1
    assert "PostgreSQL does not stay up; the end of" in refused.stderr
    assert 'invalid value for parameter "shared_buffers"' in refused.stderr
    assert not place.paths().sockets.exists()


def test_dbshell_opens_psql_on_the_embedded_server(place: Place) -> None:
    shell = place.command(
        "dbshell", "--", "-tAc", "SELECT current_database()", "-c", r"\echo :VERSION_NUM"
    )
    name, psql = shell.stdout.splitlines()
    assert name == "verse"
    assert psql.startswith("16")  # the package's, not the system's


def test_without_the_package_the_error_says_what_to_do() -> None:
    look = "from embedded_postgres.server import bin_folder; bin_folder(16)"
    bare = subprocess.run(
        [sys.executable, "-S", "-c", look],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={"PYTHONPATH": str(ROOT)},
    )
    assert "set DATABASE_URL, or run pip install -r requirements.lock" in bare.stderr
    with pytest.raises(EmbeddedServerError, match=r"choose one of \[16, 18\]"):
        bin_folder(15)


def test_a_supervisor_that_stops_keeps_new_users_waiting(top: Path) -> None:
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


def test_a_long_log_starts_anew_and_stays_the_same_file(top: Path) -> None:
    paths = Paths(top, 16)
    with paths.log.open("ab", buffering=0) as log:
        log.write(b"x" * supervisor.LOG_BYTES + b"!")
        supervisor.Watch(paths).trim_log()
        log.write(b"new")
    assert paths.log.read_bytes() == b"new"
    assert paths.log.with_suffix(".log.old").stat().st_size > supervisor.LOG_BYTES
