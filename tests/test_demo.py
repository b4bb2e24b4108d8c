"""`make demo`, as a stranger runs it: a copy in a folder with a space, real local model, Ctrl-C, again."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import httpx2
import pytest

from tests.support import ROOT, clean_environment, free_port

PATIENCE_S = 60
GONE_S = 10  # after so long no process is left


class Demo:
    """`make demo` in a folder, its processes in a group of their own as a terminal would have it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.port = free_port()
        self.log = folder.parent / "demo.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                ["make", "demo"], cwd=folder, env=clean_environment(PORT=str(self.port)), stdout=log, stderr=log,
                start_new_session=True,
            )  # fmt: skip
        self.wait_for("Application startup complete.")

    @property
    def password(self) -> str:
        """The one that it printed."""
        found = re.search(r"^Sign in as demo, password (\S+)$", self.log.read_text(), re.MULTILINE)
        assert found, self.log.read_text()
        return found[1]

    def wait_for(self, text: str) -> None:
        """Until its output holds the text."""
        until = time.monotonic() + PATIENCE_S
        while text not in self.log.read_text():
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.1)

    def client(self) -> httpx2.Client:
        """Signed in."""
        client = httpx2.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=PATIENCE_S, trust_env=False)
        asked = client.post("/api/auth/token/", json={"username": "demo", "password": self.password})
        client.headers["Authorization"] = f"Token {asked.json()['token']}"
        return client

    def signal(self, number: signal.Signals) -> None:
        """To the whole group, as Ctrl-C does."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, number)


def processes_of(folder: Path) -> list[str]:
    """Command lines that name the folder."""
    found = []
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError):
            if entry.name.isdigit():
                found.append((entry / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in found if str(folder) in line]


def wait_until_gone(folder: Path) -> None:
    """Until no process of the folder's is left. Fails after GONE_S."""
    until = time.monotonic() + GONE_S
    while left := processes_of(folder):
        assert time.monotonic() < until, left
        time.sleep(0.2)


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[Path]:
    """A copy of the project without data of its own, in a folder with a space."""
    copy = tmp_path / "a copy" / "verse"
    shutil.copytree(ROOT, copy, ignore=shutil.ignore_patterns(".venv", ".verse", ".git", ".env", ".*_cache"))
    tmp_path.chmod(0o755)
    (copy / ".venv").symlink_to(ROOT / ".venv")
    yield copy
    for entry in Path("/proc").iterdir():
        with contextlib.suppress(OSError, ValueError):
            if str(copy).encode() in (entry / "cmdline").read_bytes():
                os.kill(int(entry.name), signal.SIGKILL)


def test_the_demo_answers_stops_and_goes_on_from_the_same_data(folder: Path) -> None:
    demo = Demo(folder)
    with contextlib.closing(demo.client()) as client:
        chat = client.post("/api/chats/", json={"title": "First"}).json()["id"]
        turn = client.post(f"/api/chats/{chat}/messages/", json={"content": "Say hello."}).json()
    assert turn["assistant_message"]["status"] == "complete"
    assert turn["assistant_message"]["content"]
    password = demo.password
    demo.signal(signal.SIGINT)
    demo.process.wait(PATIENCE_S)
    wait_until_gone(folder)

    again = Demo(folder)
    assert again.password == password
    with contextlib.closing(again.client()) as client:
        kept = client.get(f"/api/chats/{chat}/messages/").json()["results"]
    assert kept == [turn["user_message"], turn["assistant_message"]]
    again.signal(signal.SIGKILL)
    again.process.wait(PATIENCE_S)
    wait_until_gone(folder)

    once_more = Demo(folder)
    with contextlib.closing(once_more.client()) as client:
        assert client.get(f"/api/chats/{chat}/messages/").json()["results"] == kept
    once_more.signal(signal.SIGINT)
    once_more.process.wait(PATIENCE_S)
    wait_until_gone(folder)
