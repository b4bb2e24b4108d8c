"""A primary and a streaming replica in a temporary folder, for tests that stop and kill them.

They listen on sockets alone. The programs are those of the embedded PostgreSQL 16.
"""

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import psycopg

from embedded_postgres.create_data import SUPERUSER
from embedded_postgres.files import Paths, account
from embedded_postgres.programs import ENVIRONMENT, command_line
from tests.support import PATIENCE_S, wait_for

SETTINGS = (
    "listen_addresses=",
    "fsync=off",
    "max_connections=100",
    "jit=off",
    "wal_receiver_status_interval=1s",
    "wal_retrieve_retry_interval=200ms",
)


class PostgresServer:
    """One server with its data and its socket in ``folder``. Its database is called verse."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(mode=0o700)
        os.chown(folder, account().uid, account().gid)
        self.folder, self.data = folder, folder / "data"
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"postgresql:///verse?host={self.folder}&port=5432&user={SUPERUSER}"

    def run_program(self, program: str, *arguments: str) -> None:
        """Run one of PostgreSQL's programs to its end."""
        subprocess.run(
            self._command(program, *arguments),
            env=ENVIRONMENT, cwd="/", check=True, stdout=subprocess.DEVNULL, timeout=PATIENCE_S,
        )  # fmt: skip

    def start(self, *, database: str = "verse") -> None:
        """Start it and wait until it takes connections to the database."""
        options = [*SETTINGS, f"unix_socket_directories={self.folder}"]
        arguments = [part for option in options for part in ("-c", option)]
        with (self.folder / "log").open("ab") as log:
            process = self._process = subprocess.Popen(
                self._command("postgres", "-D", str(self.data), *arguments),
                env=ENVIRONMENT, cwd="/", stdin=subprocess.DEVNULL, stdout=log, stderr=log,
            )  # fmt: skip
        wait_for(lambda: self._answers(database) or process.poll() is not None)
        assert process.poll() is None, (self.folder / "log").read_text()

    def run(self, statement: str, *params: Any) -> list[tuple[Any, ...]]:
        """The statement's rows, however long it takes."""
        options = "-c statement_timeout=0"
        with psycopg.connect(self.url, autocommit=True, options=options) as session:
            cursor = psycopg.ClientCursor(session)
            cursor.execute(statement, params or None)
            return cursor.fetchall() if cursor.description else []

    @property
    def log(self) -> str:
        return (self.folder / "log").read_text()

    def session(self) -> psycopg.Connection[Any]:
        """A session with a transaction."""
        return psycopg.connect(self.url)

    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def kill(self) -> None:
        """SIGKILL to the server and all of its processes."""
        if self._process:
            self.signal(signal.SIGKILL)
            self._process.wait(PATIENCE_S)
            self._process = None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the server and to each of its processes."""
        assert self._process
        for pid in (self._process.pid, *children_of(self._process.pid)):
            with suppress(ProcessLookupError):
                os.kill(pid, number)

    def stop(self) -> None:
        """A fast shutdown, as for a restart."""
        assert self._process
        self._process.send_signal(signal.SIGINT)
        self._process.wait(PATIENCE_S)
        self._process = None

    def _command(self, program: str, *arguments: str) -> list[str]:
        return command_line(Paths(self.folder, 16), program, *arguments)

    def _answers(self, database: str) -> bool:
        with suppress(psycopg.OperationalError), psycopg.connect(self.url, dbname=database):
            return True
        return False


def children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


@contextmanager
def replicated_servers() -> Iterator[tuple[PostgresServer, PostgresServer]]:
    """A primary with an empty database and its replica, both running."""
    with postgres_server() as primary:
        replica = PostgresServer(primary.folder.with_name("replica"))
        copy_to_replica(primary, replica)
        replica.start()
        try:
            yield primary, replica
        finally:
            replica.kill()


@contextmanager
def postgres_server(parent: Path | None = None) -> Iterator[PostgresServer]:
    """A server of its own, running, with an empty database; its files below ``parent``."""
    folder = Path(tempfile.mkdtemp(prefix="verse-test-postgres-", dir=parent))
    folder.chmod(0o755)
    primary = PostgresServer(folder / "primary")
    try:
        primary.run_program(
            "initdb", "-D", str(primary.data), f"--username={SUPERUSER}", "--auth=trust",
            "--encoding=UTF8", "--locale=C.UTF-8", "--no-sync",
        )  # fmt: skip
        primary.start(database="postgres")
        with psycopg.connect(primary.url, dbname="postgres", autocommit=True) as session:
            session.execute("CREATE DATABASE verse")
        yield primary
    finally:
        primary.kill()
        shutil.rmtree(folder, ignore_errors=True)


def copy_to_replica(primary: PostgresServer, replica: PostgresServer) -> None:
    """Copy the primary's data to the replica, which then follows the primary."""
    shutil.rmtree(replica.data, ignore_errors=True)
    source = f"host={primary.folder} port=5432 user={SUPERUSER}"
    replica.run_program(
        "pg_basebackup", "-D", str(replica.data), "-d", source, "--write-recovery-conf",
        "--checkpoint=fast", "--no-sync",
    )  # fmt: skip
