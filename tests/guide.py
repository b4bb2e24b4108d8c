"""Runs the operators' pages: a separate PostgreSQL, releases in folders, a shell."""

import contextlib
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg

from embedded_postgres.ensure_running import ensure_running
from embedded_postgres.programs import bin_folder
from tests.pages import Block
from tests.support import clean_environment, free_port

RELEASE = (
    "chat",
    "retrieval",
    "pooled_postgres",
    "embedded_postgres",
    "verse",
    "deploy",
    "manage.py",
    "gunicorn.conf.py",
    "pyproject.toml",
)
TIMEOUT_S = 300  # an index step waits for the long snapshots
EDITOR = Path(__file__).with_name("edit_env.py")  # does what the page tells the reader's editor
# Names, ports and passwords as the pages write them.
HOST, OLD_PORT, NEW_PORT, PLACE = "db.example.com", "8000", "8001", "/srv/verse"
PASSWORDS = {"verse": "password-of-verse", "postgres": "password-of-postgres"}
# What differs between runs, replaced in both texts. The pages write … for the rest of a line or
# for several lines.
VARIES = {
    r"\b\d+\.\d+\.\d+\b": "<version>",
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00)?": "<time>",
    r"\b\d+(\.\d+)? (ms|s)\b": "<duration>",
    r"\b\d+(\.\d+)? ?(bytes|kB|MB|GB)\b": "<size>",
}


class Place:
    """A folder with a PostgreSQL that requires passwords, a home, and releases below ``srv``."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.folder = Path(tempfile.mkdtemp(prefix="verse-guide-"))
        self.folder.chmod(0o755)  # started by root, PostgreSQL runs as 'nobody'
        self.home, self.srv = self.folder / "home", self.folder / "srv"
        for folder in (self.home, self.srv):
            folder.mkdir()
        self.sockets = ensure_running(self.folder / "pg", version)
        self.ports = {OLD_PORT: str(free_port()), NEW_PORT: str(free_port())}
        self._require_passwords()

    def _require_passwords(self) -> None:
        """Make the application's role the owner without superuser rights; require passwords."""
        with psycopg.connect(self._as("verse", "postgres"), autocommit=True) as first:
            first.execute(
                f"CREATE ROLE postgres SUPERUSER LOGIN PASSWORD '{PASSWORDS['postgres']}'"
            )
        with psycopg.connect(self._as("postgres", "postgres"), autocommit=True) as server:
            server.execute("ALTER ROLE verse RENAME TO bootstrap")
            server.execute(f"CREATE ROLE verse LOGIN PASSWORD '{PASSWORDS['verse']}'")
            server.execute("ALTER DATABASE verse OWNER TO verse")
            access = Path(str(server.execute("SHOW hba_file").fetchone()[0]))  # type: ignore[index]
            access.write_text("local all all scram-sha-256\n")
            server.execute("SELECT pg_reload_conf()")

    def _as(self, role: str, database: str) -> str:
        password = PASSWORDS.get(role, "")
        access = f"host={self.sockets}&port=5432&user={role}&password={password}"
        return f"postgresql:///{database}?{access}"

    def connect(self, database: str = "verse") -> psycopg.Connection:
        """A session with the rights of the application's role."""
        return psycopg.connect(self._as("verse", database), autocommit=True)

    def run(self, sql: str, *params: object, database: str = "verse") -> list[tuple[object, ...]]:
        """The statement's rows, with the rights of the application's role."""
        with self.connect(database) as session:
            cursor = psycopg.ClientCursor(session)
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def release(self, name: str, source: Path, settings: dict[str, str] | None = None) -> Path:
        """Install a copy of the code in ``/srv/verse/name``; with ``settings`` also a ``.env``."""
        folder = self.srv / name
        folder.mkdir()
        for part in RELEASE:
            if not (source / part).exists():
                continue  # the old code has fewer packages
            if (source / part).is_dir():
                shutil.copytree(
                    source / part, folder / part, ignore=shutil.ignore_patterns("tests")
                )
            else:
                shutil.copy2(source / part, folder / part)
        (folder / ".venv").symlink_to(sys.prefix)
        if settings:
            usual = {
                "DATABASE_URL": self._as("verse", "verse"),
                "SECRET_KEY": "test",
                "WEB_CONCURRENCY": "1",
            }
            lines = [f"{name}={value}\n" for name, value in (usual | settings).items()]
            (folder / ".env").write_text("".join(lines))
        return folder

    def environment(self) -> dict[str, str]:
        """A shell's environment: the home, PostgreSQL's programs, no settings of Verse."""
        path = os.pathsep.join((str(bin_folder(self.version)), os.environ["PATH"]))
        return clean_environment() | {"PATH": path, "HOME": str(self.home)}

    def localised(self, text: str) -> str:
        """The page's text with this place's host, folder and ports."""
        text = text.replace(HOST, str(self.sockets)).replace(PLACE, str(self.srv))
        text = text.replace("sleep 10 ", "sleep 1 ")  # our load balancer checks before each request
        for written, port in self.ports.items():
            text = re.sub(rf"\b{written}\b", port, text)
        return text

    def remove(self) -> None:
        """Delete the files. PostgreSQL then ends by itself."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Shell:
    """A bash that runs blocks in turn: later blocks know the variables of earlier ones.

    Servers that a block starts end with the shell.
    """

    def __init__(self, place: Place) -> None:
        self._place = place
        self._files = place.folder / "blocks"
        self._files.mkdir()
        self._count = 0
        with (self._files / "shell").open("w") as errors:
            self._bash = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail"],
                cwd=place.srv,
                env=place.environment(),
                text=True,
                start_new_session=True,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=errors,
            )
        # Ends its servers even if the tests are killed and stdin closes.
        self._send("trap 'kill 0' EXIT\n")

    def run(self, block: Block) -> str:
        """The block's stdout and stderr. AssertionError: its exit code is not the page's."""
        self._count += 1
        script, output, code = (
            self._files / f"{self._count}.{end}" for end in ("block", "out", "code")
        )
        script.write_text(self._place.localised(block.text))
        command = {
            "dotenv": shlex.join([sys.executable, str(EDITOR), str(script), ".env"]),
            "sh": f". {script}",
            "sql": f"psql service=verse --no-psqlrc --set ON_ERROR_STOP=1 --file {script}",
            "python": f".venv/bin/python manage.py shell --no-imports < {script}",
        }[block.kind]
        # An expected failure is caught; any other ends bash (set -e), even inside a block.
        ended = "&& code=0 || code=$?" if block.exit else "; code=0"
        self._send(
            f"{command} > {output} 2>&1 {ended}\necho $code > {code}.new; mv {code}.new {code}\n"
        )
        self._wait(code, block, output)
        assert int(code.read_text()) == block.exit, (
            f"line {block.line}:\n{block.text}\n{output.read_text()}"
        )
        return output.read_text()

    def _send(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text)
        self._bash.stdin.flush()

    def _wait(self, code: Path, block: Block, output: Path) -> None:
        until = time.monotonic() + TIMEOUT_S
        while not code.exists():
            ended = self._bash.poll() is not None
            if ended or time.monotonic() > until:
                shell = (self._files / "shell").read_text()
                why = "a command failed" if ended else f"not done after {TIMEOUT_S} s"
                raise AssertionError(
                    f"line {block.line}: {why}:\n{block.text}\n{output.read_text()}\n{shell}"
                )
            time.sleep(0.02)

    def end(self) -> None:
        """Kill it and all its processes."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


def same(printed: str, shown: str) -> bool:
    """Whether the output is as shown. … matches anything; blank lines do not count."""
    pattern = "".join(map(pattern_of, lines_of(shown)))
    return re.fullmatch(pattern, "".join(lines_of(printed)), re.DOTALL) is not None


def lines_of(text: str) -> list[str]:
    """The lines, without what differs between runs."""
    for varies, name in VARIES.items():
        text = re.sub(varies, name, text)
    return [f"{line.rstrip()}\n" for line in text.splitlines() if line.strip()]


def pattern_of(line: str) -> str:
    """A line that is only … matches any number of lines; other … match within their line."""
    return "(.*\n)?" if line.strip() == "…" else re.escape(line).replace("…", "[^\n]*")


@contextlib.contextmanager
def place_of(version: int) -> Iterator[Place]:
    """A place for one page."""
    place = Place(version)
    try:
        yield place
    finally:
        place.remove()
