"""Shared by the tests of EMBED_QUEUE: a database with the engine's tables, Redis, workers."""

import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from fake_openai import FakeOpenAI
from tests.databases import Database
from tests.support import PATIENCE_S, ROOT, clean_environment, free_port

ENGINES = ("procrastinate", "celery")
PENDING = """
    SELECT count(*) FROM message_memories WHERE model IS NULL AND embedding_error IS NULL
"""


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)


class Redis:
    """A Redis on a free port, without files. ``stop`` and ``start`` as often as you like."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.start()

    def start(self) -> None:
        program = shutil.which("redis-server")
        assert program, "apt-get install redis-server"
        self._process = subprocess.Popen(
            [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", "",
             "--appendonly", "no", "--dir", tempfile.gettempdir()],
            stdout=subprocess.DEVNULL,
        )  # fmt: skip
        wait_for(self._answers)

    def stop(self) -> None:
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def _answers(self) -> bool:
        program = shutil.which("redis-cli") or "redis-cli"
        ping = [program, "-p", str(self.port), "ping"]
        return "PONG" in subprocess.run(ping, capture_output=True, text=True, check=False).stdout


class Worker:
    """``embed_worker`` in a process, with its output in a file."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._log = Path(tempfile.mkstemp(prefix="verse-test-worker-")[1])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "embed_worker"],
                cwd=ROOT, env=clean_environment(**settings), stdout=log, stderr=log,
            )  # fmt: skip

    @property
    def log(self) -> str:
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        wait_for(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        self.kill()
        self._log.unlink(missing_ok=True)


@dataclass
class Queue:
    """The settings of servers and workers, and the workers that were started."""

    settings: dict[str, str]
    database: Database
    fake: FakeOpenAI
    redis: Redis | None = None
    workers: list[Worker] = field(default_factory=list)

    def start_worker(self, **settings: str) -> Worker:
        worker = Worker(self.settings | settings)
        self.workers.append(worker)
        worker.wait_for_log("Embedding for the queue")
        return worker

    def pending(self) -> int:
        return int(self.database.run(PENDING)[0][0])

    def paid(self) -> list[str]:
        """Every text that the service was sent, once for each time."""
        return [text for call in self.fake.embeddings.requests for text in call.texts]


@contextmanager
def queue_of(engine: str, database: Database, fake: FakeOpenAI) -> Iterator[Queue]:
    """A database with the engine's tables, and the engine."""
    redis = Redis() if engine == "celery" else None
    settings = {
        "DATABASE_URL": database.url,
        "SECRET_KEY": "test",
        "LLM_BASE_URL": fake.base_url,
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "EMBED_QUEUE": engine,
        "THROTTLE_MESSAGES": "off",
        "STREAMS_PER_USER": "100",
    } | ({"CELERY_BROKER_URL": redis.url} if redis else {})
    migrated = database.process("migrate", **settings)
    assert migrated.returncode == 0, migrated.stderr
    queue = Queue(settings, database, fake, redis)
    try:
        yield queue
    finally:
        for worker in queue.workers:
            worker.end()
        if redis:
            redis.stop()
