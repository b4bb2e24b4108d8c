"""Processes that use an embedded server, and a home folder with its server's processes."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from embedded_postgres.ensure_running import ROOT
from embedded_postgres.files import Paths
from embedded_postgres.process import is_server, read_pid_file

# A process that uses the server: Django with the pool of verse/settings.py. It reads a statement
# from each line of stdin and writes the first value of its result as a line of JSON.
USER_PROGRAM = """
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
    connection.close()  # as at the end of a request
"""


class User:
    """A process that uses the server until its stdin closes."""

    def __init__(
        self, home: Path, version: int = 16, *, prefix: tuple[str, ...] = (sys.executable,)
    ) -> None:
        command = [*prefix, "-c", USER_PROGRAM, str(home), str(version)]
        self.process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment()
        )

    def send(self, sql: str) -> None:
        """Send a statement without waiting for its result."""
        assert self.process.stdin
        self.process.stdin.write(f"{sql}\n")
        self.process.stdin.flush()

    def receive(self) -> Any:
        """The first value of the next result."""
        assert self.process.stdout
        return json.loads(self.process.stdout.readline())

    def query(self, sql: str) -> Any:
        """The first value of a statement's first row."""
        self.send(sql)
        return self.receive()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


class Home:
    """A home folder of an embedded server, the users started on it, and the server's processes."""

    def __init__(self, top: Path) -> None:
        self.folder = top / "a b" / "ü" / ".verse"
        self.users: list[User] = []

    def user(self, version: int = 16, **more: Any) -> User:
        """Start a process that uses this home's server."""
        self.users.append(User(self.folder, version, **more))
        return self.users[-1]

    def command(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a management command with this home's server."""
        command = [sys.executable, "-c", USER_PROGRAM, str(self.folder), "16", *arguments]
        return subprocess.run(command, capture_output=True, text=True, env=environment())

    def paths(self, version: int = 16) -> Paths:
        """The server's files."""
        return Paths(self.folder.resolve(), version)

    def postgres(self) -> int:
        """The process number of PostgreSQL, 0 without one."""
        return read_pid_file(self.paths())[0]

    def unfinished(self) -> set[Path]:
        """The databases whose creation runs or was killed."""
        return set(self.folder.glob("*.new-*"))

    def is_creating(self, earlier: set[Path]) -> bool:
        """Whether a database is being created that is not one of the earlier ones."""
        return bool(self.unfinished() - earlier)

    def kill_postgres(self) -> None:
        """Kill PostgreSQL and wait: until it has ended its children still answer, correctly."""
        postgres = self.postgres()
        kill([postgres])
        wait_until(lambda: not is_server(postgres, self.paths().data))

    def processes(self, word: str = "") -> list[int]:
        """All processes of this home but the users, with ``word`` in their command line."""
        users = [user.process.pid for user in self.users]
        pids = [int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()]
        return [pid for pid in pids if pid not in users and self._is_of_home(pid, word)]

    def _is_of_home(self, pid: int, word: str) -> bool:
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
            cwd = os.readlink(f"/proc/{pid}/cwd")  # noqa: PTH115 - the folder may be deleted
        except OSError:
            return False
        return word in command and str(self.folder) in command + cwd

    def stop(self) -> None:
        """Stop the server with SIGTERM, and wait."""
        kill(self.processes("embedded_postgres.supervisor"), signal.SIGTERM)
        wait_until(lambda: not self.processes())

    def clear(self) -> None:
        """Kill all processes, and remove the socket folders."""
        for user in self.users:
            user.kill()
        while left := self.processes():
            kill(left)
        for version in (16, 18):
            digest = self.paths(version).sockets.name.rpartition("-")[2]
            for sockets in Path("/tmp").glob(f"verse-*-{digest}"):
                sockets.unlink() if sockets.is_symlink() else shutil.rmtree(sockets)


def environment() -> dict[str, str]:
    """This process's, its import path, and PG variables that the server must ignore."""
    paths = [str(ROOT), *(path for path in sys.path if path.endswith("site-packages"))]
    return os.environ | {
        "PYTHONPATH": os.pathsep.join(paths),
        "PGPORT": "6543",
        "PGHOST": "nowhere.invalid",
        "PGOPTIONS": "",  # here a commit must survive a killed PostgreSQL
    }


def kill(pids: list[int], number: int = signal.SIGKILL) -> None:
    """Signal processes; those that have ended are skipped."""
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def wait_until(condition: Callable[[], object], *, within_s: float = 10) -> None:
    """Wait until the condition is true."""
    deadline = time.monotonic() + within_s
    while not condition():
        assert time.monotonic() < deadline, "the condition is still false"
        time.sleep(0.05)
