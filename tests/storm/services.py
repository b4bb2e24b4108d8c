"""What the storm blows on: PostgreSQL, PgBouncer, two web servers, a worker, two services."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.embed_worker import Worker
from tests.pgbouncer import PgBouncer
from tests.replicated import PostgresServer, postgres_server
from tests.storm.fakes import KEY, Embedder, Model
from tests.storm.findings import Findings
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, free_port, wait_for

CLOCK = ROOT / "tests" / "faults" / "clock.c"
DISK_MB = 1500
SECRET = "storm-secret-key-never-in-a-log"
SMALL_WAL = "ALTER SYSTEM SET max_wal_size = '128MB'"  # the usual 1 GB would fill the small disk
CREATE_USERS = """
import sys, django
django.setup()
from django.contrib.auth.models import User
from chat.auth.api_tokens import create_token
for number in range(int(sys.argv[1])):
    print(create_token(User.objects.create(username=f"user {number}"))[1])
"""


class Web:
    """A server at an address that stays the same, with the logs of all its processes."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings = settings | {"PORT": str(free_port()), "WEB_CONCURRENCY": "1"}
        self._earlier_log = ""
        self._server = Server(dict(self._settings))
        self.address = self._server.url

    @property
    def log(self) -> str:
        return self._earlier_log + self._server.log

    def signal(self, number: signal.Signals) -> None:
        """To all processes of the server."""
        with suppress(ProcessLookupError):
            os.killpg(self._server.process.pid, number)

    def kill(self) -> None:
        self._server.kill()
        self._earlier_log += self._server.log

    def start(self) -> None:
        self._server = Server(dict(self._settings))

    def end(self) -> None:
        self._server.end()


@dataclass
class Site:
    """Everything that runs. ``disk`` is PostgreSQL's own small one; None: there is none."""

    database: PostgresServer
    pooler: PgBouncer | None
    model: Model
    embedder: Embedder
    settings: dict[str, str]
    clocks: list[Path]  # a file for each web server: how many seconds its clock is wrong
    disk: Path | None
    webs: list[Web] = field(default_factory=list)
    worker_logs: list[str] = field(default_factory=list)
    tokens: list[str] = field(default_factory=list)

    def start(self, people: int) -> None:
        """Migrate, create the users, start servers and worker."""
        self.database.run(SMALL_WAL)
        self.database.run("SELECT pg_reload_conf()")
        self.run("manage.py", "migrate")
        self.tokens = self.run("-c", CREATE_USERS, str(people)).split()
        for clock in self.clocks:
            self.webs.append(Web(self.settings | {"JUMP": str(clock)}))
        self.start_worker()

    def run(self, *arguments: str, **settings: str) -> str:
        """The output of a Python program with the storm's settings, and these."""
        settings = self.settings | {"DJANGO_SETTINGS_MODULE": "verse.settings"} | settings
        return subprocess.run(
            [sys.executable, *arguments], cwd=ROOT, env=clean_environment(**settings),
            check=True, stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
        ).stdout  # fmt: skip

    def start_worker(self) -> None:
        self.worker = Worker(self.settings)

    def kill_worker(self) -> None:
        self.worker.kill()
        self.worker_logs.append(self.worker.log)

    def ensure_database(self) -> None:
        """Start PostgreSQL if it has ended, as it does when its disk is full."""
        if not self.database.is_running():
            self.database.start()
        wait_for(self._answers)

    def _answers(self) -> bool:
        with suppress(Exception):
            return bool(self.database.run("SELECT 1"))
        return False

    def logs(self) -> list[str]:
        return [*(web.log for web in self.webs), *self.worker_logs, self.worker.log]

    def end(self) -> None:
        for web in self.webs:
            web.end()
        self.worker.end()
        if self.pooler:
            self.pooler.stop()


@contextmanager
def running_site(people: int, findings: Findings, *, has_pooler: bool) -> Iterator[Site]:
    """Everything started, and ended afterwards."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="verse-storm-")))
        folder.chmod(0o755)  # PostgreSQL and PgBouncer run under an account of their own
        disk = stack.enter_context(small_disk(folder / "disk"))
        database = stack.enter_context(postgres_server(disk))
        pooler = PgBouncer(database) if has_pooler and shutil.which("pgbouncer") else None
        model, embedder = Model(findings), Embedder(findings)
        for service in (model, embedder):
            stack.enter_context(service.server)
        model.server.chat.default = model
        embedder.server.embeddings.default = embedder
        clocks = [folder / f"clock{number}" for number in range(2)]
        urls = {"DATABASE_URL": pooler.url if pooler else database.url}
        settings = urls | _settings(database, model, embedder) | _clock(folder)
        site = Site(database, pooler, model, embedder, settings, clocks, disk)
        stack.callback(site.end)
        site.start(people)
        yield site


def _settings(database: PostgresServer, model: Model, embedder: Embedder) -> dict[str, str]:
    return {
        "DATABASE_DIRECT_URL": database.url,
        "SECRET_KEY": SECRET,
        "PGOPTIONS": "",  # PgBouncer refuses start-up parameters
        "LLM_BASE_URL": model.server.base_url,
        "LLM_API_KEY": KEY,
        "LLM_TIMEOUT": "10",
        "OPENAI_BASE_URL": embedder.server.base_url,
        "OPENAI_API_KEY": KEY,
        "EMBED_QUEUE": "procrastinate",
        "THROTTLE_MESSAGES": "off",
    }


def _clock(folder: Path) -> dict[str, str]:
    """The settings of processes whose clocks can be moved; none without a C compiler."""
    library = folder / "clock.so"
    if not shutil.which("cc"):
        return {}
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, CLOCK, "-ldl"], check=True)
    return {"LD_PRELOAD": str(library)}


@contextmanager
def small_disk(folder: Path) -> Iterator[Path | None]:
    """A file system of DISK_MB in memory; None without the right to mount one."""
    folder.mkdir()
    options = ["-t", "tmpfs", "-o", f"size={DISK_MB}m,mode=755", "tmpfs", str(folder)]
    if subprocess.run(["mount", *options], capture_output=True, check=False).returncode:
        yield None
        return
    try:
        yield folder
    finally:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
