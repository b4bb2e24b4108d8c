"""A real PgBouncer for tests: transaction pooling, and no setting for Verse's sake."""

import shutil
import signal
import socket
import subprocess
from contextlib import suppress
from pathlib import Path

from embedded_postgres.create_data import SUPERUSER
from embedded_postgres.files import account
from tests.replicated import PostgresServer
from tests.support import PATIENCE_S, free_port, wait_for

SERVER_SESSIONS = 4  # fewer than the clients, so that each session serves several of them
SETTINGS = """
[databases]
verse = host={server} port=5432 dbname=verse
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = trust
auth_file = {folder}/users
pool_mode = transaction
default_pool_size = {sessions}
server_login_retry = {retry_s}
"""
DEFAULT_RETRY_S = 15  # PgBouncer's own


class PgBouncer:
    """PgBouncer in front of the server, with its files in the server's folder."""

    def __init__(
        self,
        server: PostgresServer,
        *,
        sessions: int = SERVER_SESSIONS,
        retry_s: int = DEFAULT_RETRY_S,
    ) -> None:
        self.port = free_port()
        self.url = f"postgresql://{SUPERUSER}@127.0.0.1:{self.port}/verse"
        self._settings = server.folder / "pgbouncer.ini"
        self._values = {"port": self.port, "folder": server.folder}
        self._values |= {"sessions": sessions, "retry_s": retry_s}
        self._write_settings(server)
        (server.folder / "users").write_text(f'"{SUPERUSER}" ""\n')
        self._log = server.folder / "pgbouncer.log"
        self.start()

    @property
    def log(self) -> str:
        return self._log.read_text()

    def start(self) -> None:
        """Start it and wait until it takes clients, whatever the database does."""
        program = shutil.which("pgbouncer") or "/usr/sbin/pgbouncer"
        assert Path(program).exists(), "apt-get install pgbouncer"
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [program, str(self._settings)], stdout=log, stderr=log,
                user=account().uid, group=account().gid, extra_groups=[],
            )  # fmt: skip
        wait_for(self._listens)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def move_to(self, server: PostgresServer) -> None:
        """Send clients to another server from now on, by SIGHUP: it reads its file again."""
        self._write_settings(server)
        self._process.send_signal(signal.SIGHUP)

    def _write_settings(self, server: PostgresServer) -> None:
        self._settings.write_text(SETTINGS.format(server=server.folder, **self._values))

    def _listens(self) -> bool:
        with suppress(ConnectionRefusedError), socket.create_connection(("127.0.0.1", self.port)):
            return True
        return False
