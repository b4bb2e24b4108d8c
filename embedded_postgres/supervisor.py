"""The parent of the embedded PostgreSQL: ``python -m embedded_postgres.supervisor HOME VERSION``.

It makes the database when there is none, runs PostgreSQL, starts it again when it crashes, and stops it 5 s
after the last process that used it is gone. Its stdout says nothing and closes when the server is ready, or
says why there will be none; its stderr is the log.
"""

import fcntl
import locale
import logging
import os
import secrets
import shutil
import signal
import stat
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from embedded_postgres import server
from embedded_postgres.server import EmbeddedServerError, Paths

WATCH_S = 0.5  # how often it looks for users
IDLE_S = (
    5  # without a user, before it stops: a development server that reloads is away for 1 to 2 s
)
PAUSES_S = (0.2, 0.5, 1, 2)  # before each new start of a server that died; then it gives up
STEADY_S = 60  # a server that lived so long has earned all its new starts again
# A fast stop loses nothing but may wait for a checkpoint; an immediate one costs a recovery at the next start.
STOPS = (
    (signal.SIGINT, 20),
    (signal.SIGQUIT, 5),
    (signal.SIGKILL, 5),
)  # seconds to wait after each
LOG_BYTES = 10_000_000  # then it starts anew; one older log is kept, so twice that on disk
SETTINGS = {
    "listen_addresses": "",  # the socket only
    "port": server.PORT,  # or PGPORT would name the socket
    "unix_socket_permissions": "0700",
    "max_connections": "200",  # web workers x DATABASE_POOL_SIZE, running answers, pytest-xdist
    "shared_buffers": "128MB",  # PostgreSQL's own default, whatever initdb thought of the machine
    "fsync": "on",
    "jit": "off",  # the estimate of the recall statement grows with the table: shared/design notes, Connections
    "timezone": "UTC",
    "log_timezone": "UTC",
    "logging_collector": "off",
}

logger = logging.getLogger("embedded_postgres")
_stop_asked = False


def main() -> None:
    """Detach from whoever started us, then run the server until nobody uses it."""
    if os.fork():
        os._exit(
            0
        )  # whoever started us is not our parent any more: it need not outlive us, nor reap us
    os.umask(0o077)
    _mind_signals()
    logging.basicConfig(format="%(asctime)s verse [%(process)d] %(message)s", level=logging.INFO)
    paths = Paths(Path(sys.argv[1]), int(sys.argv[2]))
    # Never closed: the kernel frees it when we end, however we end.
    if not server.try_lock(server.open_private(paths.supervisor), fcntl.LOCK_EX):
        return
    try:
        _run(paths)
    except (EmbeddedServerError, OSError) as error:
        logger.error(error)
        sys.stdout.write(f"{error}\n")
        sys.exit(1)


def _mind_signals() -> None:
    def stop(_number: int, _frame: object) -> None:
        global _stop_asked  # noqa: PLW0603 - an Event's lock could be held by the very thread we interrupt
        _stop_asked = True

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _run(paths: Paths) -> None:
    _end_earlier_server(paths)
    for unfinished in paths.home.glob(f"{paths.data.name}.new-*"):
        shutil.rmtree(unfinished, ignore_errors=True)
    if not paths.data.exists():
        _create(paths)
    _keep_running(Postgres(paths), Watch(paths))


def _end_earlier_server(paths: Paths) -> None:
    """Make sure that no PostgreSQL works on this folder: one may be left from a supervisor that was killed."""
    pid, _ = server.read_pid_file(paths)
    _end(pid, lambda: not server.is_server(pid, paths.data))
    if pid and _is_alive(pid):
        # PostgreSQL believes in any living process of that number, and would never start.
        logger.info("process %d is not PostgreSQL: its pid file is old", pid)
        (paths.data / "postmaster.pid").unlink(missing_ok=True)


def _is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        with suppress(PermissionError):  # it lives, and is somebody else's
            os.kill(pid, 0)
        return True
    return False


def _end(pid: int, is_gone: Callable[[], bool]) -> None:
    for number, patience_s in STOPS:
        if is_gone():
            return
        logger.info("sending %s to PostgreSQL, process %d", number.name, pid)
        with suppress(ProcessLookupError):  # it ended just now
            os.kill(pid, number)
        deadline = time.monotonic() + patience_s
        while not is_gone() and time.monotonic() < deadline:
            time.sleep(server.POLL_S)
    if not is_gone():
        raise EmbeddedServerError(f"PostgreSQL, process {pid}, does not end")


def _create(paths: Paths) -> None:
    """Make the database under another name first: what a SIGKILL leaves is never taken for one."""
    unfinished = paths.data.with_name(f"{paths.data.name}.new-{secrets.token_hex(4)}")
    _make_folder(unfinished)
    where = ["-D", str(unfinished)]
    # trust: only we and root can reach the socket. C.UTF-8 knows what a letter is; not every system has it.
    _call(paths, "initdb", *where, f"--username={server.SUPERUSER}", "--auth=trust", "--encoding=UTF8",
          f"--locale={_locale()}")  # fmt: skip
    # Without a server running: nobody can see the folder ready and the database missing.
    sql = f"CREATE DATABASE {server.DATABASE}"
    _call(paths, "postgres", "--single", *where, "-c", "exit_on_error=on", "postgres", sql=sql)
    unfinished.rename(paths.data)
    _sync(paths.home)


def _locale() -> str:
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    return "C.UTF-8"


def _make_folder(path: Path) -> None:
    path.mkdir(mode=0o700)
    os.chown(path, server.account().uid, server.account().gid)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)


def _call(paths: Paths, program: str, *arguments: str, sql: str = "") -> None:
    command = _command(paths, program, *arguments)
    result = subprocess.run(
        command, input=sql.encode(), stdout=sys.stderr, cwd="/", env=_environment(), check=False
    )
    if result.returncode:
        raise EmbeddedServerError(
            f"{program} failed, {result.returncode}; {server.log_tail(paths)}"
        )


def _environment() -> dict[str, str]:
    # Nothing of the user's: PGPORT, PGDATA or PGOPTIONS would change the server.
    return {"PATH": os.defpath, "LC_ALL": "C"}


def _command(paths: Paths, program: str, *arguments: str) -> list[str]:
    """A program of PostgreSQL as a command line: under its account, and ending when the supervisor does."""
    binary = server.bin_folder(paths.version) / program
    setpriv = shutil.which(
        "setpriv"
    )  # util-linux; its process becomes the program, with the same number
    if setpriv is None and os.geteuid() == 0:
        raise EmbeddedServerError("setpriv (util-linux) is missing, needed when started as root")
    if (
        setpriv is None
    ):  # macOS: a server whose supervisor was killed is ended by the next supervisor
        return [str(binary), *arguments]
    # INT is PostgreSQL's fast stop, and also makes initdb stop.
    return [setpriv, "--pdeathsig", "INT", *_drop_root(binary, paths.home), str(binary), *arguments]


def _drop_root(binary: Path, home: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    account = server.account()
    drop = [f"--reuid={account.uid}", f"--regid={account.gid}", "--clear-groups"]
    if _is_closed(binary) or _is_closed(home):
        # The project is below a folder like /root (0700). Opening that folder is not ours to do, so PostgreSQL
        # keeps this one power of root's. Only searching were enough, but containers do not have that power.
        drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return drop


def _is_closed(path: Path) -> bool:
    return not all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))


class Postgres:
    """The server's process, started again when it dies."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self._pauses = iter(PAUSES_S)
        self._start()

    def _start(self) -> None:
        self._make_sockets()
        options = [f"{name}={value}" for name, value in SETTINGS.items()]
        options.append(f"unix_socket_directories={self.paths.sockets}")
        arguments = [part for option in options for part in ("-c", option)]
        command = _command(self.paths, "postgres", "-D", str(self.paths.data), *arguments)
        self._process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=sys.stderr, cwd="/", env=_environment()
        )
        self._started = time.monotonic()

    def _make_sockets(self) -> None:
        """Fresh at each start: a socket's lock file from before may name a process that is another's now."""
        sockets = self.paths.sockets
        if sockets.is_symlink() or sockets.exists():
            # root: a start that was killed between making the folder and giving it away.
            server.check_private(sockets, os.geteuid(), server.account().uid)
            shutil.rmtree(sockets)
        _make_folder(sockets)

    def is_ready(self) -> bool:
        """Whether it takes connections."""
        return server.is_ready(self.paths)

    def has_failed(self) -> bool:
        """Whether it ended, or nobody can find its socket any more."""
        return self._process.poll() is not None or not self.paths.sockets.exists()

    def restart(self) -> None:
        """Start it again after a pause, longer each time. EmbeddedServerError: it died too often."""
        self.stop()
        if time.monotonic() - self._started > STEADY_S:
            self._pauses = iter(PAUSES_S)
        pause_s = next(self._pauses, None)
        if pause_s is None:
            raise EmbeddedServerError(f"PostgreSQL does not stay up; {server.log_tail(self.paths)}")
        logger.info("PostgreSQL ended, %d; starting it again", self._process.returncode)
        time.sleep(pause_s)
        self._start()

    def stop(self) -> None:
        """Stop it and remove its socket folder; nothing to do when it has ended."""
        _end(self._process.pid, lambda: self._process.poll() is not None)
        shutil.rmtree(self.paths.sockets, ignore_errors=True)


class Watch:
    """Looks whether anybody uses the server."""

    def __init__(self, paths: Paths) -> None:
        self.log = paths.log
        self._users = server.open_private(paths.users)
        self._idle_since: float | None = None

    def is_over(self) -> bool:
        """Whether to stop. After 5 s without users this *keeps* the lock: new users wait until we are gone."""
        return _stop_asked or self._is_deleted() or self._is_idle()

    def _is_deleted(self) -> bool:
        # Somebody removed the whole folder; a new supervisor may already be at work on a new one.
        return not os.fstat(self._users).st_nlink

    def _is_idle(self) -> bool:
        if not server.try_lock(self._users, fcntl.LOCK_EX):
            self._idle_since = None
            return False
        self._idle_since = self._idle_since or time.monotonic()
        if time.monotonic() - self._idle_since >= IDLE_S:
            return True
        fcntl.flock(self._users, fcntl.LOCK_UN)
        return False

    def trim_log(self) -> None:
        """Start the log anew when it is long. PostgreSQL appends to the open file, so it stays the same file."""
        with suppress(FileNotFoundError):  # deleted: the open file goes on
            if self.log.stat().st_size > LOG_BYTES:
                shutil.copyfile(self.log, self.log.with_suffix(".log.old"))
                os.truncate(self.log, 0)


def _keep_running(postgres: Postgres, watch: Watch) -> None:
    announced = False
    try:
        while not watch.is_over():
            if postgres.has_failed():
                postgres.restart()
            if not announced and postgres.is_ready():
                announced = True
                os.dup2(
                    sys.stderr.fileno(), sys.stdout.fileno()
                )  # closes the pipe our starter reads
                logger.info("ready, data in %s", postgres.paths.data)
            watch.trim_log()
            time.sleep(WATCH_S if announced else server.POLL_S)
        logger.info("stopping")
    finally:
        postgres.stop()


if __name__ == "__main__":
    main()
