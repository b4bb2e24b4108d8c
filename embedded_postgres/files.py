"""Where an embedded server keeps its files, which account owns them, and locks on them.

Standard library only: the supervisor runs without Django.
"""

import fcntl
import hashlib
import os
import pwd
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

LOG_TAIL_LINES = 8  # in an error message: enough for FATAL, DETAIL and HINT


class EmbeddedServerError(Exception):
    """The embedded PostgreSQL cannot be used. The message says why, and what to do."""


@dataclass(frozen=True)
class Account:
    """The system account that runs PostgreSQL, as numbers: group names differ between systems."""

    uid: int
    gid: int


def account() -> Account:
    """This process's account; for root ``nobody``, because PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return Account(os.geteuid(), os.getegid())
    try:
        unprivileged = pwd.getpwnam("nobody")
    except KeyError as error:
        raise EmbeddedServerError(
            "no account 'nobody': start as another user, or set DATABASE_URL"
        ) from error
    return Account(unprivileged.pw_uid, unprivileged.pw_gid)


@dataclass(frozen=True)
class Paths:
    """Every file of one server. ``home`` is absolute and has no symbolic links."""

    home: Path
    version: int

    @property
    def data(self) -> Path:
        """The database folder. It exists only when the database is complete."""
        return self.home / f"postgres-{self.version}"

    @property
    def log(self) -> Path:
        """The log of PostgreSQL and of the supervisor."""
        return self.home / f"postgres-{self.version}.log"

    @property
    def users(self) -> Path:
        """Lock file: shared by every process that uses the server, exclusive while it stops."""
        return self.home / f"postgres-{self.version}.users"

    @property
    def supervisor(self) -> Path:
        """Lock file: held exclusively by the supervisor."""
        return self.home / f"postgres-{self.version}.supervisor"

    @property
    def sockets(self) -> Path:
        """The socket's folder: below /tmp, because a socket's path has at most 107 bytes.

        Depends on the data path alone, not on TMPDIR: a connection pool keeps it for its lifetime.
        """
        digest = hashlib.sha256(os.fsencode(self.data)).hexdigest()[:10]
        return Path(f"/tmp/verse-{account().uid}-{digest}")  # noqa: S108 # see check_private


def open_private(path: Path, flags: int = 0) -> int:
    """A descriptor of a file that only its owner may read.

    Forks of this process share it; programs that it starts do not get it.
    """
    return os.open(path, os.O_RDWR | os.O_CREAT | flags, 0o600)


def try_lock(descriptor: int, kind: int) -> bool:
    """Take the lock (``fcntl.LOCK_SH`` or ``LOCK_EX``) unless another process prevents it."""
    try:
        fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether another process holds the file's lock exclusively."""
    descriptor = open_private(path)
    try:
        # A supervisor that starts at this instant fails to lock the file and exits. That is
        # harmless: the process that needs it starts another.
        return not try_lock(descriptor, fcntl.LOCK_SH)
    finally:
        os.close(descriptor)


def check_private(folder: Path, *owners: int) -> None:
    """Check that the folder belongs to one of ``owners`` (uids) and is closed to others.

    Any account can create a folder below /tmp, run a server there and read what clients send.
    Raises EmbeddedServerError.
    """
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid not in owners or status.st_mode & 0o077:
        raise EmbeddedServerError(
            f"{folder} is not our private folder: remove it, or set DATABASE_URL"
        )


def check_data(paths: Paths) -> None:
    """Check that existing data has our owner and version. Raises EmbeddedServerError."""
    if not paths.data.exists():
        return
    owner = paths.data.stat().st_uid
    if owner != account().uid:
        raise EmbeddedServerError(
            f"{paths.data} belongs to {_account_name(owner)}: "
            "start as the user who made it, or set DATABASE_URL"
        )
    version = _data_version(paths.data)
    if version != str(paths.version):
        raise EmbeddedServerError(
            f"{paths.data} was made by PostgreSQL {version}, not {paths.version}: "
            "move it away, or set DATABASE_URL"
        )


def _data_version(data: Path) -> str:
    try:
        return (data / "PG_VERSION").read_text().strip()
    except FileNotFoundError:
        return "something else"


def _account_name(uid: int) -> str:
    try:
        if uid == pwd.getpwnam("nobody").pw_uid:
            return "root, who runs it as 'nobody'"
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def log_tail(paths: Paths) -> str:
    """The last lines of the server's log, for an error message."""
    with suppress(FileNotFoundError):
        lines = paths.log.read_text(errors="replace").splitlines()[-LOG_TAIL_LINES:]
        return "\n".join((f"the end of {paths.log}:", *lines))
    return f"{paths.log} is empty"
