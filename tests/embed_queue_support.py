"""Shared by the tests of EMBED_QUEUE: a database with the engine's tables, workers, a server."""

import subprocess
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field

from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from fake_openai import FakeOpenAI
from tests.databases import Database
from tests.embed_worker import Worker
from tests.redis_server import Redis
from tests.support import PATIENCE_S, ROOT, Server, clean_environment, wait_for

PENDING = """
    SELECT count(*) FROM message_memories WHERE model IS NULL AND embedding_error IS NULL
"""
STARTED = "Embedding for the queue"


@dataclass
class Queue:
    """The settings of servers and workers, and the workers that were started."""

    settings: dict[str, str]
    database: Database
    fake: FakeOpenAI
    redis: Redis | None = None
    workers: list[Worker] = field(default_factory=list)

    def start_worker(self, **settings: str) -> Worker:
        """Start a worker; return when it works."""
        worker = Worker(self.settings | settings)
        self.workers.append(worker)
        worker.wait_for_log(STARTED)
        return worker

    def command(self, *arguments: str) -> "subprocess.CompletedProcess[str]":
        """Run a program of the virtual environment with these settings."""
        return subprocess.run(
            arguments,
            cwd=ROOT,
            env=clean_environment(**self.settings),
            capture_output=True,
            text=True,
            timeout=PATIENCE_S,
        )

    def pending(self) -> int:
        """How many messages have no vector."""
        return int(self.database.run(PENDING)[0][0])

    def wait_until_embedded(self) -> None:
        """Wait until nothing is pending."""
        wait_for(lambda: not self.pending())

    def calls(self) -> list[list[str]]:
        """The texts of each call."""
        return [call.texts for call in self.fake.embeddings.requests]

    def bought(self) -> Counter[str]:
        """How often each text was sent to the service."""
        return Counter(text for call in self.calls() for text in call)


@contextmanager
def queue_of(engine: str, database: Database, fake: FakeOpenAI) -> Iterator[Queue]:
    """A database with the engine's tables, and the engine."""
    fake.reset()
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
    }
    if redis:
        redis.start()
        settings["CELERY_BROKER_URL"] = redis.url
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
        fake.reset()


@contextmanager
def talking(queue: Queue, people: int) -> Iterator[tuple[Server, list[str]]]:
    """A server, and tokens of so many users."""
    with queue.database.connected():
        users = [User.objects.create(username=f"user {number}") for number in range(people)]
        tokens = [create_token(user)[1] for user in users]
    server = Server(dict(queue.settings))
    try:
        yield server, tokens
    finally:
        server.end()


def post(server: Server, tokens: list[str], turns: int) -> None:
    """All users post so many different messages each, at once, as fast as they are answered."""

    def talk(person: int) -> None:
        client = server.client(tokens[person])
        chat = client.post("/api/chats/", json={}).json()["id"]
        for number in range(turns):
            content = {"content": f"Number {number} of person {person}: bread"}
            turn = client.post(f"/api/chats/{chat}/messages/", json=content)
            assert turn.status_code == 201, turn.text

    with ThreadPoolExecutor(len(tokens)) as people:
        list(people.map(talk, range(len(tokens))))
