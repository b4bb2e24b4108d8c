"""Workers of both engines as processes: under load, killed, without broker or database."""

import random
import signal
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from fake_openai import FakeOpenAI, Vectors
from retrieval.embeddings.batching import truncate
from tests.databases import Database
from tests.embed_queue_support import Queue, post, queue_of, talking
from tests.support import PATIENCE_S, Server, wait_for

pytestmark = [pytest.mark.soak, pytest.mark.django_db, pytest.mark.newest_schema]
BIN = Path(sys.executable).parent
BATCH_ROWS = 100  # of one call
ENGINES = ("procrastinate", "celery")
MESSAGES = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', format('old %%s, %%s', n, random()), now() - interval '1 hour'
    FROM standalone_chats, generate_series(1, %s) n
"""
PEOPLE = """
    WITH person AS (INSERT INTO auth_user (username, password, is_superuser, first_name, last_name,
        email, is_staff, is_active, date_joined)
    VALUES ('old', '!', false, '', '', '', false, true, now()) RETURNING id)
    INSERT INTO standalone_chats (user_id) SELECT id FROM person
"""
# What a server imports at its start.
LOADED = """
import sys
import verse.asgi
verse.asgi.start()
print(*sys.modules)
"""
IS_IN_ADMIN = """
import verse.urls
from django.contrib import admin
from procrastinate.contrib.django.models import ProcrastinateJob
print(admin.site.is_registered(ProcrastinateJob))
"""
END_SESSIONS = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s"


@pytest.fixture(params=ENGINES)
def queue(
    request: pytest.FixtureRequest, database: Database, openai_server: FakeOpenAI
) -> Iterator[Queue]:
    with queue_of(request.param, database, openai_server) as queue:
        yield queue


def embedded(database: Database) -> int:
    """How many messages have a vector."""
    return int(database.run("SELECT count(embedding) FROM standalone_chat_messages")[0][0])


class Killer:
    """Kills one of two workers now and then, and starts another, while the block runs."""

    def __init__(self, queue: Queue, seed: int) -> None:
        self.kills = 0
        self._queue, self._random = queue, random.Random(seed)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> "Killer":
        self._running = [self._queue.start_worker() for _ in range(2)]
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.wait(self._random.uniform(3, 10)):
            self._running.pop(self._random.randrange(2)).kill()
            self.kills += 1
            self._running.append(self._queue.start_worker())


def test_5000_messages_with_workers_killed_at_random_are_each_paid_once(queue: Queue) -> None:
    seed = time.time_ns()
    with talking(queue, 10) as (server, tokens), Killer(queue, seed) as killer:
        post(server, tokens, 250)  # 2,500 questions and as many answers
        queue.wait_until_embedded()
        assert not [line for line in server.log.splitlines() if "startup" not in line]
    bought = queue.bought()
    assert len(bought) == 5_000, seed
    by_workers = [call for call in queue.calls() if call[0].startswith("You said")]
    again = sum(bought.values()) - len(bought)
    print(f"{len(by_workers)} calls, {killer.kills} kills, {again} texts paid twice")  # noqa: T201
    assert len(by_workers) < 0.2 * 2_500
    assert again <= killer.kills * BATCH_ROWS  # the one call in flight of each killed worker


def test_a_killed_workers_call_is_taken_up_within_a_minute(queue: Queue) -> None:
    queue.database.run(PEOPLE)
    queue.database.run(MESSAGES, 5)
    queue.fake.embeddings.default = Vectors(delay_s=60)
    killed = queue.start_worker()
    wait_for(queue.calls)
    killed.kill()
    queue.fake.embeddings.default = Vectors()
    began = time.monotonic()
    queue.start_worker()
    queue.wait_until_embedded()
    print(f"taken up after {time.monotonic() - began:.0f} s")  # noqa: T201
    assert [len(call) for call in queue.calls()] == [5, 5]


def test_a_worker_embeds_what_is_older_than_memory(
    database: Database, openai_server: FakeOpenAI
) -> None:
    with queue_of("procrastinate", database, openai_server) as queue:
        back = database.process("migrate", "chat", "0001_initial", **queue.settings)
        assert back.returncode == 0, back.stderr
        database.run(PEOPLE)
        database.run(MESSAGES, 1_200)
        there = database.process("migrate", **queue.settings)
        assert there.returncode == 0, there.stderr
        for _ in range(2):
            queue.start_worker()
        wait_for(lambda: embedded(database) == 1_200)
        assert set(queue.bought().values()) == {1}


def allow_connections(database: Database, *, allowed: bool) -> None:
    """As if the database's server were away, for its other sessions."""
    name = database.name
    with psycopg.connect(
        database.url.replace(f"/{name}?", "/postgres?"), autocommit=True
    ) as server:
        statement = sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS {}")
        server.execute(statement.format(sql.Identifier(name), sql.Literal(allowed)))
        server.execute(END_SESSIONS if not allowed else "SELECT 1", [name] if not allowed else None)


def test_a_worker_goes_on_after_its_database_was_away(queue: Queue) -> None:
    worker = queue.start_worker()
    with talking(queue, 2) as (server, tokens):
        post(server, tokens, 2)
        queue.wait_until_embedded()
        allow_connections(queue.database, allowed=False)
        worker.wait_for_log("The database failed")
        allow_connections(queue.database, allowed=True)
        worker.wait_for_log("The database is back")
        post(server, tokens, 2)
        queue.wait_until_embedded()
        queue.database.run(MESSAGES, 5)
        queue.fake.embeddings.default = Vectors(delay_s=3)
        wait_for(lambda: len(queue.bought()) > 16)
        allow_connections(queue.database, allowed=False)
        time.sleep(4)  # the call ends meanwhile
        allow_connections(queue.database, allowed=True)
        queue.wait_until_embedded()
    assert set(queue.bought().values()) == {1}
    assert worker.process.poll() is None
    assert worker.log.count("WARNING") <= 5, worker.log
    assert "ERROR" not in worker.log, worker.log


def test_a_broker_away_at_the_start_and_in_the_middle_stops_nothing(
    database: Database, openai_server: FakeOpenAI
) -> None:
    with queue_of("celery", database, openai_server) as queue:
        assert queue.redis
        queue.redis.stop()
        worker = queue.start_worker()
        worker.wait_for_log("The queue celery is away")
        with talking(queue, 2) as (server, tokens):
            post(server, tokens, 2)
            queue.wait_until_embedded()  # by a sweep
            queue.redis.start()
            worker.wait_for_log("The queue celery is back")
            wait_for(lambda: notices(server, tokens))
            queue.redis.stop()
            post(server, tokens, 2)
            queue.wait_until_embedded()
            assert set(queue.bought().values()) == {1}
            lines = [line for line in server.log.splitlines() if "takes" in line]
            assert worker.log.count("is away") == 2, worker.log
    assert [line.partition(" (")[0] for line in lines] == [
        "WARNING: The queue celery takes no jobs",
        "INFO: The queue celery takes jobs again",
        "WARNING: The queue celery takes no jobs",
    ]


def notices(server: Server, tokens: list[str]) -> bool:
    """Post, and see whether the server has noticed that the broker is back."""
    post(server, tokens, 1)
    return "takes jobs again" in server.log


def test_missing_tables_of_the_engine_are_one_warning(
    database: Database, openai_server: FakeOpenAI
) -> None:
    with queue_of("procrastinate", database, openai_server) as queue:
        database.run("DROP TABLE procrastinate_jobs CASCADE")
        worker = queue.start_worker()
        worker.wait_for_log("The queue procrastinate is away")
        with talking(queue, 2) as (server, tokens):
            post(server, tokens, 3)
            queue.wait_until_embedded()
            assert server.log.count("The queue procrastinate takes no jobs (Undefined") == 1


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_ends_a_worker_after_its_call(
    number: signal.Signals, code: int, queue: Queue
) -> None:
    queue.database.run(PEOPLE)
    queue.database.run(MESSAGES, 5)
    queue.fake.embeddings.default = Vectors(delay_s=2)
    worker = queue.start_worker()
    wait_for(queue.calls)
    worker.process.send_signal(number)
    assert worker.process.wait(PATIENCE_S) == code
    assert queue.pending() == 0
    assert queue.database.run("SELECT count(*) FROM embedding_claims") == [(0,)]
    assert worker.log.splitlines()[-1].startswith("CommandError: stopped: ")


def test_the_engines_own_tools_see_jobs_and_workers(queue: Queue) -> None:
    worker = queue.start_worker()
    if queue.redis:
        wait_for(
            lambda: (
                "pong"
                in queue.command(str(BIN / "celery"), "-A", "verse", "inspect", "ping").stdout
            )
        )
    else:
        checks = queue.command(sys.executable, "manage.py", "procrastinate", "healthchecks")
        assert checks.stdout.count(": OK") == 4, checks.stdout + checks.stderr
        assert queue.database.run("SELECT count(*) FROM procrastinate_workers") == [(1,)]
        admin = queue.command(sys.executable, "manage.py", "shell", "-c", IS_IN_ADMIN)
        assert admin.stdout.strip().endswith("True"), admin.stdout + admin.stderr
    assert worker.process.poll() is None


def test_follow_goes_on_until_a_signal(database: Database, openai_server: FakeOpenAI) -> None:
    with queue_of("procrastinate", database, openai_server) as queue:
        database.run(PEOPLE)
        database.run(MESSAGES, 5)
        process = database.start("backfill_embeddings", "--follow", settings=queue.settings)
        queue.wait_until_embedded()
        database.run(MESSAGES, 5)
        queue.wait_until_embedded()
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=PATIENCE_S)
    assert process.returncode == 143, err
    assert out.count("5 embedded, 0 failed") == 2


def test_a_signal_ends_follow_while_the_database_is_away(
    database: Database, openai_server: FakeOpenAI
) -> None:
    with queue_of("procrastinate", database, openai_server) as queue:
        database.run(PEOPLE)
        database.run(MESSAGES, 5)
        process = database.start("backfill_embeddings", "--follow", settings=queue.settings)
        queue.wait_until_embedded()
        allow_connections(database, allowed=False)
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=PATIENCE_S)
        allow_connections(database, allowed=True)
    assert (process.returncode, err.count("\n")) == (143, 1), err


def test_all_workers_and_backfills_share_one_rate(
    database: Database, openai_server: FakeOpenAI
) -> None:
    """Two minutes' tokens: those of one are there at once, the others come within a minute."""
    with queue_of("procrastinate", database, openai_server) as queue:
        database.run(PEOPLE)
        database.run(MESSAGES, 150)
        contents = database.run("SELECT content FROM standalone_chat_messages")
        tokens = sum(truncate(content).tokens for (content,) in contents)
        limit = str(tokens // 2)
        queue.settings["EMBEDDING_RATE_TOKENS_PER_MIN"] = limit
        began = time.monotonic()
        follow = database.start("backfill_embeddings", "--follow", settings=queue.settings)
        for _ in range(2):
            queue.start_worker()
        queue.wait_until_embedded()
        took = time.monotonic() - began
        follow.terminate()
        follow.communicate(timeout=PATIENCE_S)
        bought, calls = queue.bought(), queue.calls()
    print(f"{len(calls)} calls, {took:.0f} s")  # noqa: T201
    assert took > 50
    assert set(bought.values()) == {1}
    assert max(sum(truncate(text).tokens for text in call) for call in calls) <= int(limit)


def test_inline_imports_no_engine(database: Database) -> None:
    done = database.process("shell", "-c", LOADED)
    assert done.returncode == 0, done.stderr
    loaded = set(done.stdout.split())
    assert "chat.services" in loaded
    assert not loaded & {"celery", "kombu", "redis", "procrastinate"}
