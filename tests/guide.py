"""What the operators' pages are run with: a database of their own, releases in folders, one shell, traffic."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

import httpx2
import psycopg

from embedded_postgres.programs import bin_folder
from embedded_postgres.server import ensure_running
from tests.pages import Block
from tests.support import clean_environment, free_port

RELEASE = ("chat", "retrieval", "verse", "pooled_postgres", "manage.py", "gunicorn.conf.py")
PATIENCE_S = 120
PAUSE_S = 0.3  # between the turns of the one who chats
# As the pages write them; the roles' passwords are what the pages say, too.
HOST, OLD_PORT, NEW_PORT, PLACE = "db.example.com", "8000", "8001", "/srv/verse"
PASSWORDS = {"verse": "password-of-verse", "postgres": "password-of-postgres"}
# What must differ from run to run; in both texts. The pages write … for the rest of a line, or for some lines.
VARIES = {
    r"\b\d+\.\d+\.\d+\b": "<version>",
    r"\b\d{4}-\d\d-\d\d[T ]\d\d:\d\d(:\d\d)?(\.\d+)?(Z|\+00)?": "<time>",
    r"\b\d+(\.\d+)? (ms|s)\b": "<duration>",
    r"\b\d+(\.\d+)? ?(bytes|kB|MB|GB)\b": "<size>",
}


class Place:
    """A folder with a PostgreSQL that asks for passwords, a home, and the releases below ``srv``."""

    def __init__(self, version: int) -> None:
        self.version = version
        self.folder = Path(tempfile.mkdtemp(prefix="verse-guide-"))
        self.folder.chmod(0o755)  # root's PostgreSQL runs as nobody
        self.home, self.srv = self.folder / "home", self.folder / "srv"
        for made in (self.home, self.srv):
            made.mkdir()
        self.sockets = ensure_running(self.folder / "pg", version)
        self.ports = {OLD_PORT: str(free_port()), NEW_PORT: str(free_port())}
        self._ask_for_passwords()

    def _ask_for_passwords(self) -> None:
        """The application's role owns its database and is no superuser; nobody gets in without a password."""
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
        return f"postgresql:///{database}?host={self.sockets}&port=5432&user={role}&password={PASSWORDS.get(role, '')}"

    def run(self, sql: str, *params: object, database: str = "verse") -> list[tuple[object, ...]]:
        """The statement's rows, asked as the application's role."""
        with psycopg.connect(self._as("verse", database), autocommit=True) as session:
            cursor = psycopg.ClientCursor(session)
            cursor.execute(sql, params or None)
            return cursor.fetchall() if cursor.description else []

    def release(self, name: str, source: Path, settings: dict[str, str] | None = None) -> Path:
        """A release in ``/srv/verse/name``: a copy of the code, the interpreter, and ``.env`` where there is one."""
        folder = self.srv / name
        folder.mkdir()
        for part in RELEASE:
            if (source / part).is_dir():
                shutil.copytree(
                    source / part, folder / part, ignore=shutil.ignore_patterns("tests")
                )
            elif (source / part).exists():  # old releases lack pooled_postgres
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
        """For a shell: the home, PostgreSQL's programs, and no setting of Verse's."""
        path = os.pathsep.join((str(bin_folder(self.version)), os.environ["PATH"]))
        return clean_environment() | {"PATH": path, "HOME": str(self.home)}

    def here(self, text: str) -> str:
        """The page's text with this place's names."""
        text = text.replace(HOST, str(self.sockets)).replace(PLACE, str(self.srv))
        text = text.replace("sleep 10 ", "sleep 1 ")  # this balancer looks before each request
        for written, port in self.ports.items():
            text = re.sub(rf"\b{written}\b", port, text)
        return text

    def remove(self) -> None:
        """Its PostgreSQL ends by itself when it has lost its files and its users."""
        shutil.rmtree(self.folder, ignore_errors=True)


class Shell:
    """One bash for a page: what a block sets, a later one knows; servers that it starts end with it."""

    def __init__(self, place: Place) -> None:
        self._place = place
        self._files = place.folder / "blocks"
        self._files.mkdir()
        self._count = 0
        with (self._files / "shell").open("w") as said:
            self._bash = subprocess.Popen(
                ["bash", "-eu", "-o", "pipefail"], cwd=place.srv, env=place.environment(), text=True,
                start_new_session=True, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL, stderr=said,
            )  # fmt: skip

        self._tell(
            "trap 'kill 0' EXIT\n"
        )  # its servers too, when the tests are killed and it reads no more

    def run(self, block: Block) -> str:
        """What the block prints, both streams. AssertionError: it ends with another code than the page says."""
        self._count += 1
        script, output, code = (
            self._files / f"{self._count}.{end}" for end in ("block", "out", "code")
        )
        script.write_text(self._place.here(block.text))
        command = {
            "sh": f". {script}",
            "sql": f"psql service=verse --no-psqlrc --set ON_ERROR_STOP=1 --file {script}",
            "python": f".venv/bin/python manage.py shell --no-imports < {script}",
        }[block.kind]
        # Where a failure is expected bash goes on; elsewhere it ends there (set -e), in the midst of a block too.
        ended = "&& code=0 || code=$?" if block.exit else "; code=0"
        self._tell(
            f"{command} > {output} 2>&1 {ended}\necho $code > {code}.new; mv {code}.new {code}\n"
        )
        self._wait(code, block, output)
        assert int(code.read_text()) == block.exit, (
            f"line {block.line}:\n{block.text}\n{output.read_text()}"
        )
        return output.read_text()

    def _tell(self, text: str) -> None:
        assert self._bash.stdin is not None
        self._bash.stdin.write(text)
        self._bash.stdin.flush()

    def _wait(self, code: Path, block: Block, output: Path) -> None:
        until = time.monotonic() + PATIENCE_S
        while not code.exists():
            ended = self._bash.poll() is not None
            if ended or time.monotonic() > until:
                shell = (self._files / "shell").read_text()
                why = "a command failed" if ended else f"not done after {PATIENCE_S} s"
                raise AssertionError(
                    f"line {block.line}: {why}:\n{block.text}\n{output.read_text()}\n{shell}"
                )
            time.sleep(0.02)

    def end(self) -> None:
        """It and all that it has started."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._bash.pid, signal.SIGKILL)
        self._bash.communicate()


def same(printed: str, shown: str) -> bool:
    """Whether the output is as shown; … stands for anything, blank lines and the ends of lines do not count."""
    return (
        re.fullmatch(
            "".join(map(pattern_of, lines_of(shown))), "".join(lines_of(printed)), re.DOTALL
        )
        is not None
    )


def lines_of(text: str) -> list[str]:
    """Its lines, each with its end, without what differs from run to run."""
    for varies, name in VARIES.items():
        text = re.sub(varies, name, text)
    return [f"{line.rstrip()}\n" for line in text.splitlines() if line.strip()]


def pattern_of(line: str) -> str:
    """A line that is only … stands for some lines, or none; elsewhere it stays in its line."""
    return "(.*\n)?" if line.strip() == "…" else re.escape(line).replace("…", "[^\n]*")


@dataclass
class Traffic:
    """Somebody who chats all the time, through a balancer that asks /readyz: no request may fail."""

    urls: list[str]
    token: str
    failures: list[str] = field(default_factory=list)
    written: list[tuple[int, str]] = field(default_factory=list)  # (message, content)
    served: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._chat, daemon=True)
        self._thread.start()

    def _chat(self) -> None:
        headers = {"Authorization": f"Token {self.token}", "Connection": "close"}
        with httpx2.Client(timeout=60, headers=headers, trust_env=False) as client:
            chat = 0
            for number in count():
                if self._over.wait(PAUSE_S):
                    return
                url = self.urls[number % len(self.urls)]
                # A chat that memory leaves alone: its messages are never pending, so the page's counts are right.
                chat = chat or self._ask(client, url, "POST", "/api/chats/", {"memory": False}).get(
                    "id", 0
                )
                path, content = f"/api/chats/{chat}/messages/", f"Bread number {number}"
                if turn := self._ask(client, url, "POST", path, {"content": content}):
                    self.written.append((turn["user_message"]["id"], content))
                    self.served[url] = self.served.get(url, 0) + 1
                self._ask(client, url, "GET", f"{path}?page_size=5")

    def _ask(
        self, client: httpx2.Client, url: str, method: str, path: str, json: object = None
    ) -> dict[str, Any]:
        """The answer; empty where the balancer sends nobody there."""
        if not self._is_ready(client, url):
            return {}
        try:
            response = client.request(method, url + path, json=json)
        except httpx2.HTTPError as error:
            self.failures.append(f"{method} {path}: {error!r}")
            return {}
        if response.status_code not in (200, 201):
            self.failures.append(f"{method} {path}: {response.status_code} {response.text[:300]}")
            return {}
        return dict(response.json())

    def _is_ready(self, client: httpx2.Client, url: str) -> bool:
        try:
            return client.get(f"{url}/readyz").status_code == 200
        except httpx2.HTTPError:
            return False

    def end(self) -> None:
        """No more requests."""
        self._over.set()
        self._thread.join(40)


@contextlib.contextmanager
def place_of(version: int) -> Iterator[Place]:
    """A place for one page."""
    place = Place(version)
    try:
        yield place
    finally:
        place.remove()
