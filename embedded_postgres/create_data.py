"""Creates the database folder of an embedded server."""

import locale
import os
import secrets
from pathlib import Path

from embedded_postgres.files import Paths
from embedded_postgres.process import make_folder
from embedded_postgres.programs import run_program

SUPERUSER = "verse"
CREATE_DATABASE = "CREATE DATABASE verse"


def create_data(paths: Paths) -> None:
    """Create the database under another name, then rename it, so it is complete or absent.

    A creation that was killed leaves a folder that is never taken for a database.
    """
    unfinished = paths.data.with_name(f"{paths.data.name}.new-{secrets.token_hex(4)}")
    make_folder(unfinished)
    data = ["-D", str(unfinished)]
    # trust: only our account and root can reach the socket.
    access = [f"--username={SUPERUSER}", "--auth=trust", "--encoding=UTF8"]
    run_program(paths, "initdb", *data, *access, f"--locale={_locale()}")
    # In single-user mode: no client can connect before the database exists.
    single_user = ["--single", *data, "-c", "exit_on_error=on", "postgres"]
    run_program(paths, "postgres", *single_user, stdin=CREATE_DATABASE)
    unfinished.rename(paths.data)
    _sync(paths.home)


def _locale() -> str:
    """C.UTF-8 classifies letters of all languages; not every system has it."""
    try:
        locale.setlocale(locale.LC_CTYPE, "C.UTF-8")
    except locale.Error:
        return "C"
    return "C.UTF-8"


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
