"""The parent of the embedded PostgreSQL: ``python -m embedded_postgres.supervisor HOME VERSION``.

It creates the database if there is none, runs PostgreSQL, restarts it after a crash, and stops it
5 s after its last user ended. Its stdout closes without output when the server is ready; otherwise
it says why the server cannot start. Its stderr is the log.
"""

import fcntl
import logging
import os
import shutil
import signal
import sys
import time
from contextlib import suppress
from pathlib import Path

from embedded_postgres.create_data import create_data
from embedded_postgres.files import EmbeddedServerError, Paths, open_private, try_lock
from embedded_postgres.process import (
    POLL_S,
    Postgres,
    is_ready,
    is_server,
    read_pid_file,
    stop_process,
)

WATCH_S = 0.5  # how often it checks for users
IDLE_S = 5  # without a user, before it stops: a development server reloads within 1 to 2 s
MAX_LOG_BYTES = 10_000_000  # then it is emptied; one older log is kept, so at most twice that

logger = logging.getLogger("embedded_postgres")
_stop_requested = False


def main() -> None:
    """Detach from the starting process, then run the server until it is not used any more."""
    if os.fork():
        # The starter is not our parent any more: it need not outlive us or wait for us.
        os._exit(0)
    os.umask(0o077)
    _handle_signals()
    logging.basicConfig(format="%(asctime)s verse [%(process)d] %(message)s", level=logging.INFO)
    paths = Paths(Path(sys.argv[1]), int(sys.argv[2]))
    # Never closed: the kernel drops the lock when this process ends, for any reason.
    if not try_lock(open_private(paths.supervisor), fcntl.LOCK_EX):
        return
    try:
        _run(paths)
    except (EmbeddedServerError, OSError) as error:
        logger.error(error)
        sys.stdout.write(f"{error}\n")
        sys.exit(1)


def _handle_signals() -> None:
    def stop(_number: int, _frame: object) -> None:
        # Not a threading.Event: the interrupted thread may hold its lock.
        global _stop_requested  # noqa: PLW0603
        _stop_requested = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _run(paths: Paths) -> None:
    _end_earlier_server(paths)
    for unfinished in paths.home.glob(f"{paths.data.name}.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not paths.data.exists():
        create_data(paths)
    _keep_running(Postgres(paths), Watch(paths))


def _end_earlier_server(paths: Paths) -> None:
    """End a PostgreSQL on this folder whose supervisor was killed."""
    pid, _ = read_pid_file(paths)
    stop_process(pid, lambda: not is_server(pid, paths.data))
    if pid and _is_alive(pid):
        # PostgreSQL refuses to start while any process has the number in its pid file.
        logger.info("process %d is not PostgreSQL: its pid file is old", pid)
        (paths.data / "postmaster.pid").unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        with suppress(PermissionError):  # it is alive and belongs to another account
            os.kill(pid, 0)
        return True
    return False


class Watch:
    """Checks whether the server is still used."""

    def __init__(self, paths: Paths) -> None:
        self.log = paths.log
        self._users = open_private(paths.users)
        self._idle_since: float | None = None

    def is_over(self) -> bool:
        """Whether to stop. After 5 s without users this *keeps* the lock: new users wait."""
        return _stop_requested or self._is_deleted() or self._is_idle()

    def _is_deleted(self) -> bool:
        # The whole folder was removed; a new supervisor may already use a new one.
        return not os.fstat(self._users).st_nlink

    def _is_idle(self) -> bool:
        if not try_lock(self._users, fcntl.LOCK_EX):
            self._idle_since = None
            return False
        self._idle_since = self._idle_since or time.monotonic()
        if time.monotonic() - self._idle_since >= IDLE_S:
            return True
        fcntl.flock(self._users, fcntl.LOCK_UN)
        return False

    def trim_log(self) -> None:
        """Empty a long log after copying it. It stays the same file: PostgreSQL has it open."""
        with suppress(FileNotFoundError):  # deleted: the open file is still written to
            if self.log.stat().st_size > MAX_LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.old"))
                os.truncate(self.log, 0)


def _keep_running(postgres: Postgres, watch: Watch) -> None:
    announced = False
    try:
        while not watch.is_over():
            if postgres.has_failed():
                postgres.restart()
            if not announced and is_ready(postgres.paths):
                announced = True
                # Closes the pipe that the starter reads from.
                os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
                logger.info("ready, data in %s", postgres.paths.data)
            watch.trim_log()
            time.sleep(WATCH_S if announced else POLL_S)
        logger.info("stopping")
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
