"""`make demo` in a copy of the project, in a folder with a space, with the real local model."""

import contextlib
import os
import pwd
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.http_proxy import http_proxy
from tests.support import PATIENCE_S, ROOT, clean_environment, free_port

# Until no process is left: 5 s without a user, then a checkpoint, which is slow on a busy disk.
OTHER_UID = pwd.getpwnam("daemon").pw_uid  # an account that every system has
SUPERVISOR = "embedded_postgres.supervisor"
SYSTEM_PYTHON = "/usr/bin/python3"
# A command that uses the database and then does something else.
SHELL = """
import time
from django.db import connection
connection.ensure_connection()
print("connected", flush=True)
time.sleep(60)
"""


class Demo:
    """`make demo` or another command, in a process group of its own as in a terminal."""

    def __init__(self, folder: Path, *command: str, **environment: str) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder.parent / "demo.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                command or ("make", "demo"),
                cwd=folder,
                env=clean_environment(PORT=str(self.port), **environment),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        self.wait_for("Application startup complete.")

    @property
    def password(self) -> str:
        """The password that it printed."""
        match = re.search(r"^Sign in as demo, password (\S+)$", self.log.read_text(), re.MULTILINE)
        assert match, self.log.read_text()
        return match[1]

    def wait_for(self, text: str) -> None:
        """Wait until its output contains the text."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def client(self) -> httpx2.Client:
        """A client with demo's token."""
        client = httpx2.Client(
            base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False
        )
        credentials = {"username": "demo", "password": self.password}
        response = client.post("/api/auth/token/", json=credentials)
        client.headers["Authorization"] = f"Token {response.json()['token']}"
        return client

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the whole group, as Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def processes_of(folder: Path) -> dict[int, str]:
    """Command lines of the processes that name the folder or work in it, by process number."""
    commands = {}
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                command = (entry / "cmdline").read_bytes().replace(b"\0", b" ")
                line = command.decode(errors="replace")
                cwd = os.readlink(entry / "cwd")  # noqa: PTH115 # the folder may be deleted
                if str(folder) in line + cwd:
                    commands[int(entry.name)] = line
    return commands


def wait_until_stopped(folder: Path) -> None:
    """Wait until the folder has no process. Fails after PATIENCE_S."""
    until = time.monotonic() + PATIENCE_S
    while left := processes_of(folder):
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.fixture
def folder() -> Iterator[Path]:
    """A copy of the project without data, in a folder with a space, open to all accounts."""
    top = Path(tempfile.mkdtemp(prefix="verse-test-"))
    top.chmod(0o755)
    copy = top / "a copy" / "verse"
    shutil.copytree(
        ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".verse", ".git", ".env", ".*_cache")
    )
    (copy / ".venv").symlink_to(ROOT / ".venv")
    yield copy
    end_all(copy)
    shutil.rmtree(top)


def end_all(folder: Path) -> None:
    """Kill the users of PostgreSQL, and let its supervisor stop it now instead of after 5 s."""
    for pid, line in processes_of(folder).items():
        # Not a PostgreSQL process: after its death PostgreSQL recovers for 20 s.
        if not re.match(r"\S*postgres", line):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM if SUPERVISOR in line else signal.SIGKILL)
    wait_until_stopped(folder)


def test_the_demo_answers_stops_and_starts_again_with_its_data(folder: Path) -> None:
    # The database of a real server, which the demo leaves alone.
    (folder / ".env").write_text("DATABASE_URL=postgresql://verse@127.0.0.1:1/verse\n")
    with http_proxy() as (proxy, urls):
        variables = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
        proxies = {name: proxy for upper in variables for name in (upper, upper.lower())}
        # A short prompt, because the model reads slowly.
        demo = Demo(folder, LLM_MAX_TOKENS="16", RAG_CONTEXT_TOKENS="200", **proxies)
        with contextlib.closing(demo.client()) as client:
            chat = client.post("/api/chats/", json={"title": "First"}).json()["id"]
            question = {"content": "Say hello."}
            sample = client.get("/api/chats/").json()["results"][-1]["id"]
            assert client.delete(f"/api/chats/{sample}/").status_code == 204
            turn = client.post(f"/api/chats/{chat}/messages/", json=question).json()
            chats = client.get("/api/chats/").json()
        assert turn["assistant_message"]["status"] == "complete"
        assert turn["assistant_message"]["content"]
        password = demo.password
        demo.signal(signal.SIGINT)
        demo.process.wait(PATIENCE_S)
        wait_until_stopped(folder)
    assert urls == []

    again = Demo(folder)
    assert again.password == password
    with contextlib.closing(again.client()) as client:
        stored = client.get(f"/api/chats/{chat}/messages/").json()["results"]
        assert client.get("/api/chats/").json() == chats
    assert stored == [turn["user_message"], turn["assistant_message"]]
    again.signal(signal.SIGKILL)
    again.process.wait(PATIENCE_S)
    wait_until_stopped(folder)

    once_more = Demo(folder)
    with contextlib.closing(once_more.client()) as client:
        assert client.get(f"/api/chats/{chat}/messages/").json()["results"] == stored
    once_more.signal(signal.SIGKILL)
    once_more.process.wait(PATIENCE_S)


@pytest.mark.soak
def test_a_killed_command_leaves_no_server(folder: Path) -> None:
    command = [str(folder / ".venv/bin/python"), "manage.py", "shell", "--no-imports", "-c", SHELL]
    with subprocess.Popen(
        command, cwd=folder, env=clean_environment(), stdout=subprocess.PIPE
    ) as shell:
        assert shell.stdout
        assert shell.stdout.readline() == b"connected\n"
        assert any(SUPERVISOR in line for line in processes_of(folder).values())
        shell.kill()
    wait_until_stopped(folder)


@pytest.mark.skipif(os.geteuid() != 0, reason="the test above ran without root")
@pytest.mark.soak
def test_the_demo_runs_without_root(folder: Path) -> None:
    packages = {"PYTHONPATH": next(path for path in sys.path if path.endswith("site-packages"))}
    account = (f"--reuid={OTHER_UID}", f"--regid={OTHER_UID}", "--clear-groups")
    command = ("setpriv", *account, SYSTEM_PYTHON)
    imports = [*command, "-c", "import psycopg, xllamacpp"]
    if subprocess.run(imports, env=clean_environment(**packages)).returncode:
        pytest.skip(f"{SYSTEM_PYTHON} cannot use this environment's packages under another account")
    for path in (folder, *folder.rglob("*")):
        os.chown(path, OTHER_UID, OTHER_UID, follow_symlinks=False)
    values = {"LLM": "local", "EMBEDDINGS": "local", "WEB_CONCURRENCY": "1"}
    demo = Demo(folder, *command, "manage.py", "demo", **packages, **values)
    with contextlib.closing(demo.client()) as client:
        assert client.post("/api/chats/", json={"title": "First"}).status_code == 201
    assert {Path(f"/proc/{pid}").stat().st_uid for pid in processes_of(folder)} == {OTHER_UID}
    demo.signal(signal.SIGINT)
    demo.process.wait(PATIENCE_S)
