"""The PostgreSQL server process: whether it runs, how to start, restart and stop it."""

import logging
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from embedded_postgres.files import EmbeddedServerError, Paths, account, check_private, log_tail
from embedded_postgres.programs import ENVIRONMENT, command_line

PORT = "5432"  # only part of the socket's file name: the server listens on no network
POLL_S = 0.05  # how often a waiting process checks again
RESTART_DELAYS_S = (0.2, 0.5, 1, 2)  # before each restart of a server that died; then it gives up
STEADY_S = 60  # after this time without a crash all restarts are allowed again
# Signals and the seconds to wait after each. A fast shutdown loses nothing but may wait for a
# checkpoint; an immediate shutdown costs a recovery at the next start.
STOP_SIGNALS = ((signal.SIGINT, 20), (signal.SIGQUIT, 5), (signal.SIGKILL, 5))
SETTINGS = {
    "listen_addresses": "",  # the socket only
    "port": PORT,  # otherwise PGPORT would name the socket
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # web workers x DATABASE_POOL_SIZE, running answers, pytest-xdist
    "shared_buffers": "128MB",  # PostgreSQL's default, instead of what initdb chooses
    "fsync": "on",
    "jit": "off",  # the recall statement's cost estimate grows with the table and would start it
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}

logger = logging.getLogger("embedded_postgres")


def is_ready(paths: Paths) -> bool:
    """Whether PostgreSQL runs, says that it accepts connections, and has its socket.

    Does not connect: that would make the server fork a process for each request.
    """
    pid, status = read_pid_file(paths)
    socket = paths.sockets / f".s.PGSQL.{PORT}"
    return status == "ready" and is_server(pid, paths.data) and socket.exists()


def read_pid_file(paths: Paths) -> tuple[int, str]:
    """The process number (0: none) and the status that PostgreSQL wrote into its data folder."""
    try:
        lines = (paths.data / "postmaster.pid").read_text(errors="replace").splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting"
    except (FileNotFoundError, IndexError, ValueError):  # absent, or half written
        return 0, ""


def is_server(pid: int, data: Path) -> bool:
    """Whether this process is PostgreSQL on this folder: its number may have been reused."""
    # Not /proc/PID/cwd: root in a container may not read that of another account.
    if Path("/proc/self").exists():
        gap = b"\0"
        try:
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except (FileNotFoundError, ProcessLookupError):
            return False
    else:  # macOS
        gap = b" "
        command = subprocess.run(
            ["/bin/ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, check=False
        ).stdout
    return gap.join((b"-D", os.fsencode(data), b"")) in command


def stop_process(pid: int, has_ended: Callable[[], bool]) -> None:
    """Send stronger and stronger signals until it ends. Raises EmbeddedServerError."""
    for number, timeout_s in STOP_SIGNALS:
        if has_ended():
            return
        logger.info("sending %s to PostgreSQL, process %d", number.name, pid)
        with suppress(ProcessLookupError):  # it ended just now
            os.kill(pid, number)
        deadline = time.monotonic() + timeout_s
        while not has_ended() and time.monotonic() < deadline:
            time.sleep(POLL_S)
    if not has_ended():
        raise EmbeddedServerError(f"PostgreSQL, process {pid}, does not end")


def make_folder(path: Path) -> None:
    """A folder that only PostgreSQL's account may enter."""
    path.mkdir(mode=0o700)
    os.chown(path, account().uid, account().gid)


class Postgres:
    """The server process as a child of the supervisor."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._delays = iter(RESTART_DELAYS_S)
        self._start()

    def _start(self) -> None:
        self._make_sockets()
        options = [f"{name}={value}" for name, value in SETTINGS.items()]
        options.append(f"unix_socket_directories={self.paths.sockets}")
        arguments = [part for option in options for part in ("-c", option)]
        self._process = subprocess.Popen(
            command_line(self.paths, "postgres", "-D", str(self.paths.data), *arguments),
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            cwd="/",
            env=ENVIRONMENT,
        )
        self._started = time.monotonic()

    def _make_sockets(self) -> None:
        """A new folder at each start: an old lock file may name a reused process number."""
        sockets = self.paths.sockets
        if sockets.is_symlink() or sockets.exists():
            # It belongs to root if a start was killed before it changed the folder's owner.
            check_private(sockets, os.geteuid(), account().uid)
            shutil.rmtree(sockets)
        make_folder(sockets)

    def has_failed(self) -> bool:
        """Whether it ended, or its socket folder was deleted."""
        return self._process.poll() is not None or not self.paths.sockets.exists()

    def restart(self) -> None:
        """Start it again after a delay that grows. EmbeddedServerError: it died too often."""
        self.stop()
        if time.monotonic() - self._started > STEADY_S:
            self._delays = iter(RESTART_DELAYS_S)
        delay_s = next(self._delays, None)
        if delay_s is None:
            raise EmbeddedServerError(f"PostgreSQL does not stay up; {log_tail(self.paths)}")
        logger.info("PostgreSQL ended, %d; starting it again", self._process.returncode)
        time.sleep(delay_s)
        self._start()

    def stop(self) -> None:
        """Stop it and remove its socket folder. Does nothing if it has ended."""
        stop_process(self._process.pid, lambda: self._process.poll() is not None)
        shutil.rmtree(self.paths.sockets, ignore_errors=True)
