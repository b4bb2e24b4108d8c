"""The folder in which the processes of one server count: a killed worker's counts stay.

A server's first process creates it and removes it. A lock is held as long as it or one that it
has forked lives, so the next server removes the folder of a server that was killed.
"""

import fcntl
import os
import shutil
import tempfile
from pathlib import Path

VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # prometheus_client reads it in each worker
PREFIX = "verse-metrics-"


class _Server:
    """The folder of this process's server, and who created it."""

    folder: Path | None = None
    master_pid = 0


_server = _Server()


def create(parent: str | None) -> Path:
    """Create an empty folder in ``parent``, by default the system's for temporary files.

    Raises SystemExit if that cannot be written.
    """
    parent = parent or tempfile.gettempdir()
    try:
        _remove_abandoned(Path(parent))
        folder = _new_folder(parent)
    except OSError as error:
        raise SystemExit(
            f"Verse cannot start: METRICS_TOKEN needs a folder to write; {parent}: {error.strerror}"
        ) from error
    _server.folder, _server.master_pid = folder, os.getpid()
    os.environ[VARIABLE] = str(folder)
    return folder


def _new_folder(parent: str) -> Path:
    """A new folder, locked until the last process ends that this one will have forked."""
    while True:
        folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        # Before the lock another server may have taken it for an abandoned one.
        if _lock(folder) is not None and folder.exists():
            return folder


def _remove_abandoned(parent: Path) -> None:
    for folder in parent.glob(f"{PREFIX}*"):
        lock = _lock(folder)
        if lock is not None:
            shutil.rmtree(folder, ignore_errors=True)
            os.close(lock)


def _lock(folder: Path) -> int | None:
    """A file descriptor that holds the folder's lock; None if it is taken, or not ours."""
    try:
        descriptor = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        return None
    return descriptor


def forget_process(pid: int) -> None:
    """Leave out what a process of the server was doing when it ended; its counts stay."""
    if _server.folder:
        from prometheus_client.multiprocess import mark_process_dead

        mark_process_dead(pid, str(_server.folder))  # type: ignore[no-untyped-call]


def remove() -> None:
    """Remove the folder. Does nothing in a worker."""
    if _server.folder and _server.master_pid == os.getpid():
        shutil.rmtree(_server.folder, ignore_errors=True)
