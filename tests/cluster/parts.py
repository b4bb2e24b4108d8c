"""The parts of the deployment, real programs on this machine, each of which can be killed."""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fake_openai import Answer, FakeOpenAI
from fake_openai.chat import Echo
from tests.cluster.balancer import Balancer
from tests.embed_queue_support import STARTED
from tests.embed_worker import Worker
from tests.pgbouncer import PgBouncer
from tests.replicated import PostgresServer, replicated_servers
from tests.support import PATIENCE_S, ROOT, Server, clean_environment

NOT_COPIED = shutil.ignore_patterns(
    ".git", ".venv", ".verse", ".env", "build", "benchmarks", "docs", "tests", "__pycache__"
)
SESSIONS = 20  # of PgBouncer with the database
# One process for all users and tokens: a command each would take 0.8 s.
CREATE_USERS = """
import json, sys
from django.contrib.auth.models import User
from chat.auth.api_tokens import create_token
names = json.load(sys.stdin)
users = [User.objects.create_user(name, password="a password of " + name) for name in names]
print(json.dumps({user.username: create_token(user)[1] for user in users}))
"""
SLOWLY = "slowly"  # a question with this word gets an answer of 20 s
SLOW_ANSWER = Answer(" ".join(f"word{number}" for number in range(100)), tokens_per_s=5)


class WebServer:
    """gunicorn in a copy of the code, as on a machine of its own."""

    def __init__(self, name: str, folder: Path, settings: dict[str, str]) -> None:
        self.name, self._folder, self._settings = name, folder / name, settings
        self._earlier_log = ""
        shutil.copytree(ROOT, self._folder, ignore=NOT_COPIED)
        self._draining = self._folder / ".verse" / "draining"
        self._draining.parent.mkdir()
        self._server = Server(dict(settings), root=self._folder)
        self.port, self.url = self._server.port, self._server.url

    @property
    def log(self) -> str:
        """Of all processes that it has been."""
        return self._earlier_log + self._server.log

    def start(self) -> None:
        """Start it again on the same port; wait until it is ready."""
        self._earlier_log = self.log
        self._server = Server(self._settings | {"PORT": str(self.port)}, root=self._folder)

    def kill(self) -> None:
        self._server.kill()

    def stop_gently(self, balancer: Balancer) -> None:
        """As docs/howto/start-and-stop-a-server.md says: drain, SIGTERM, wait."""
        self._draining.touch()
        balancer.wait_for_server(self.name, ready=False)
        self._server.signal(signal.SIGTERM)
        self._server.process.wait(PATIENCE_S)
        self._draining.unlink()

    def end(self) -> None:
        self._server.end()


class EmbeddingWorker:
    """``embed_worker``, which can be started again."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._settings, self._earlier_log = settings, ""
        self._worker = Worker(settings)

    @property
    def log(self) -> str:
        """Of all processes that it has been."""
        return self._earlier_log + self._worker.log

    def wait_until_ready(self) -> None:
        self._worker.wait_for_log(STARTED)

    def start(self) -> None:
        """Start it again; wait until it works."""
        self._worker = Worker(self._settings)
        self.wait_until_ready()

    def kill(self) -> None:
        self._worker.kill()
        self._earlier_log = self.log
        self._worker.end()

    def end(self) -> None:
        self._worker.end()


@dataclass
class Cluster:
    """All parts, running. ``primary`` and ``replica`` change places in a failover."""

    model: FakeOpenAI
    primary: PostgresServer
    replica: PostgresServer
    pooler: PgBouncer
    settings: dict[str, str]
    tokens: dict[str, str]
    servers: list[WebServer] = field(default_factory=list)
    workers: list[EmbeddingWorker] = field(default_factory=list)
    balancer: Balancer = field(init=False)

    @property
    def url(self) -> str:
        return self.balancer.url

    def write_logs(self, folder: Path) -> None:
        """Write each part's log into a file of the folder."""
        folder.mkdir(parents=True, exist_ok=True)
        logs = {server.name: server.log for server in self.servers}
        logs |= {f"worker{number}": worker.log for number, worker in enumerate(self.workers, 1)}
        logs |= {"primary": self.primary.log, "replica": self.replica.log}
        logs |= {"pgbouncer": self.pooler.log, "haproxy": self.balancer.log}
        for name, text in logs.items():
            (folder / f"{name}.log").write_text(text)


def settings_of(
    model: FakeOpenAI, databases: tuple[PostgresServer, PostgresServer], pooler: PgBouncer
) -> dict[str, str]:
    """Of all processes. libpq finds out which of the two databases is the primary."""
    hosts = ",".join(str(database.folder) for database in databases)
    both = databases[0].url.replace(str(databases[0].folder), hosts)
    both = both.replace("port=5432", "port=5432,5432")
    return {
        "DATABASE_URL": pooler.url,
        "DATABASE_DIRECT_URL": f"{both}&target_session_attrs=read-write",
        "DATABASE_REPLICA_URL": f"{both}&target_session_attrs=standby",
        "REPLICA_MAX_LAG": "10",  # a busy machine is no fault of the replica
        "PGOPTIONS": "",  # a start-up parameter, which PgBouncer refuses
        "SECRET_KEY": "the-same-for-all",
        "LLM_BASE_URL": model.base_url,
        "OPENAI_BASE_URL": model.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "EMBED_QUEUE": "procrastinate",
        "THROTTLE_MESSAGES": "off",
        "SHUTDOWN_GRACE": "25",
    }


def run_command(settings: dict[str, str], *arguments: str, stdin: str = "") -> str:
    """The output of a command of manage.py. Raises CalledProcessError."""
    return subprocess.run(
        [sys.executable, "manage.py", *arguments],
        input=stdin, cwd=ROOT, env=clean_environment(**settings), check=True,
        stdout=subprocess.PIPE, text=True, timeout=PATIENCE_S,
    ).stdout  # fmt: skip


@contextmanager
def running_cluster(model: FakeOpenAI, users: list[str]) -> Iterator[Cluster]:
    """All parts with an empty database and these users. It takes half a minute."""
    model.chat.default = Echo(first_token_s=0.2, tokens_per_s=40)
    model.chat.when(SLOWLY, SLOW_ANSWER)
    with ExitStack() as stack:
        folder = Path(tempfile.mkdtemp(prefix="verse-test-cluster-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        primary, replica = stack.enter_context(replicated_servers())
        pooler = PgBouncer(primary, sessions=SESSIONS, retry_s=1)
        stack.callback(pooler.stop)
        settings = settings_of(model, (primary, replica), pooler)
        run_command(settings, "migrate")
        created = run_command(settings, "shell", "-v0", "-c", CREATE_USERS, stdin=json.dumps(users))
        cluster = Cluster(model, primary, replica, pooler, settings, json.loads(created))
        start_programs(cluster, folder, stack)
        yield cluster


def start_programs(cluster: Cluster, folder: Path, stack: ExitStack) -> None:
    """Start the servers, the workers and the balancer; ``stack`` ends them."""
    for _ in range(2):
        cluster.workers.append(worker := EmbeddingWorker(cluster.settings))
        stack.callback(worker.end)
    for number in (1, 2):
        cluster.servers.append(server := WebServer(f"web{number}", folder, cluster.settings))
        stack.callback(server.end)
    for worker in cluster.workers:
        worker.wait_until_ready()
    cluster.balancer = Balancer(folder, [server.port for server in cluster.servers])
    stack.callback(cluster.balancer.stop)
