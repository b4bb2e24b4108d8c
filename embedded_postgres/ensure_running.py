"""Makes sure that the embedded PostgreSQL runs, for the processes that use it.

A process uses the server while it holds a shared lock on ``postgres-16.users``. The kernel drops
the lock when the process ends, even by SIGKILL, so the supervisor (supervisor.py) always knows
whether the server is still in use.
"""

import fcntl
import os
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from embedded_postgres.files import (
    EmbeddedServerError,
    Paths,
    account,
    check_data,
    check_private,
    is_locked,
    log_tail,
    open_private,
    try_lock,
)
from embedded_postgres.process import POLL_S, is_ready
from embedded_postgres.programs import bin_folder

START_TIMEOUT_S = 60  # a first start takes 1 s; a recovery after a crash on a slow disk takes more
ROOT = Path(__file__).resolve().parent.parent


def ensure_running(home: Path, version: int) -> Path:
    """The socket folder of the running server. Starts the server if needed, and waits for it.

    From now on this process counts as a user of the server until it ends. If the server runs, this
    costs two small reads and a lock, 0.2 ms. Raises EmbeddedServerError: not installed, not
    startable, or not ready within 60 s.
    """
    paths = Paths(home.resolve(), version)
    try:
        return _ensure_running(paths, deadline=time.monotonic() + START_TIMEOUT_S)
    except OSError as error:
        raise EmbeddedServerError(
            f"embedded PostgreSQL: {error.filename or paths.home}: {error.strerror}"
        ) from error


def _ensure_running(paths: Paths, *, deadline: float) -> Path:
    _hold_users_lock(paths, deadline=deadline)
    # A server that lost its supervisor must not be used, because it would never be stopped. The
    # new supervisor ends it first.
    while not (is_ready(paths) and is_locked(paths.supervisor)):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL is not ready after {START_TIMEOUT_S} s; {log_tail(paths)}"
            )
        if is_locked(paths.supervisor):
            time.sleep(POLL_S)
        else:
            _start_supervisor(paths, deadline=deadline)
    check_private(paths.sockets, account().uid)
    return paths.sockets


_users_locks: dict[Path, int] = {}


def _hold_users_lock(paths: Paths, *, deadline: float) -> None:
    held = _users_locks.get(paths.users)
    # No link left: the file was deleted with its folder, and a new supervisor uses a new file.
    if held is not None and os.fstat(held).st_nlink:
        return
    # Started by root, PostgreSQL runs as 'nobody', which must be able to enter the folder.
    paths.home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    check_data(paths)
    descriptor = open_private(paths.users)
    while not try_lock(descriptor, fcntl.LOCK_SH):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise EmbeddedServerError(
                f"PostgreSQL did not stop within {START_TIMEOUT_S} s; {log_tail(paths)}"
            )
        time.sleep(POLL_S)
    # If two threads come here, the other's lock stays open too, which is harmless.
    _users_locks[paths.users] = descriptor


def _start_supervisor(paths: Paths, *, deadline: float) -> None:
    """Start a supervisor and wait until the server is ready. Raises EmbeddedServerError."""
    bin_folder(paths.version)
    module = ["-P", "-m", "embedded_postgres.supervisor"]
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    }
    with (
        os.fdopen(open_private(paths.log, os.O_APPEND), "ab") as log,
        suppress(subprocess.TimeoutExpired),
    ):
        # The supervisor keeps its stdout open until the server is ready, and writes only errors.
        # It also writes nothing if another supervisor already runs.
        failure = subprocess.run(
            [sys.executable, *module, str(paths.home), str(paths.version)],
            cwd="/",
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=log,
            timeout=max(deadline - time.monotonic(), POLL_S),
            start_new_session=True,
            check=False,
        ).stdout
        if failure:
            raise EmbeddedServerError(failure.decode(errors="replace").strip())
