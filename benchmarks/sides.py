"""Two checkouts of Verse, measured in turns: each with a database and a server of its own.

A checkout is used through its commands, its HTTP API and SQL on the tables of messages only, so the
code of both may differ in everything else.
"""

import contextlib
import hashlib
import secrets
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx2
import numpy as np
import psycopg

from benchmarks.processes import BACKENDS, children_of, cpu_by_pid
from benchmarks.stage import create_database
from tests.support import ROOT, Server, clean_environment
from tests.worktree import worktree

BEFORE = "41f0cd2"  # the commit before the short path of a turn
WARM_UP_BLOCKS = 1
NO_LIMITS = {"THROTTLE_MESSAGES": "off", "STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "1"}
SIGN_UP = """
    WITH person AS (
        INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
            is_staff, is_active, date_joined)
        VALUES (%(username)s, '!', false, '', '', '', false, true, now()) RETURNING id
    )
    INSERT INTO api_tokens (user_id, name, digest, created_at)
    SELECT id, '', %(digest)s, now() FROM person
"""
CHAT = """
    INSERT INTO standalone_chats (user_id)
    SELECT id FROM auth_user WHERE username = %(username)s RETURNING id
"""

Figures = dict[str, dict[str, float]]  # by line of the table, then by side's name


@dataclass(frozen=True)
class Checkout:
    """The files of a commit. ``name`` is "before" or "now"."""

    name: str
    root: Path

    def python(self, *arguments: str, **settings: str) -> "subprocess.Popen[str]":
        """Start Python with this checkout's modules. Its standard input and output are pipes."""
        values = {"SECRET_KEY": "benchmark", "PYTHONPATH": str(self.root)} | settings
        return subprocess.Popen(
            [sys.executable, "-P", *arguments],
            cwd=self.root,
            env=clean_environment(**values),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )


@contextlib.contextmanager
def checkouts(before: Path | None) -> Iterator[list[Checkout]]:
    """The earlier checkout, by default a new worktree of BEFORE, and this one."""
    with contextlib.ExitStack() as stack:
        old = before.resolve() if before else stack.enter_context(worktree(BEFORE))
        yield [Checkout("before", old), Checkout("now", ROOT)]


@dataclass
class Side:
    """A checkout with a migrated database, and while it serves, a server."""

    checkout: Checkout
    url: str
    database: psycopg.Connection[Any]
    server: Server | None = None
    _clients: dict[str, httpx2.Client] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """The checkout's name."""
        return self.checkout.name

    def manage(self, *arguments: str, **settings: str) -> str:
        """The output of a command of this checkout. Raises RuntimeError if it fails."""
        process = self.checkout.python("manage.py", *arguments, DATABASE_URL=self.url, **settings)
        output, _ = process.communicate()
        if process.returncode:
            raise RuntimeError(f"{self.name}: {' '.join(arguments)} exited {process.returncode}")
        return output

    def sign_up(self, username: str) -> str:
        """Create a user. Returns an API token."""
        key = secrets.token_urlsafe()
        digest = hashlib.sha256(key.encode()).digest()  # what is stored: docs/decisions/0004
        self.database.execute(SIGN_UP, {"username": username, "digest": digest})
        return key

    def create_chat(self, username: str) -> int:
        """The id of a new chat of this user."""
        (chat,) = self.database.execute(CHAT, {"username": username}).fetchone() or (0,)
        return int(chat)

    def client(self, token: str) -> httpx2.Client:
        """The client with this token: always the same connection, until the server ends."""
        assert self.server
        if token not in self._clients:
            self._clients[token] = self.server.client(token)
        return self._clients[token]

    def end_server(self) -> None:
        """End the server, which closes the clients."""
        assert self.server
        self.server.end()
        self.server = None
        self._clients.clear()

    def worker_pids(self) -> list[int]:
        """The process numbers of the server's workers."""
        assert self.server
        return children_of(self.server.process.pid)

    def backend_pids(self) -> list[int]:
        """The database's processes for clients, without that of ``database``."""
        return [row[0] for row in self.database.execute(BACKENDS).fetchall()]


@contextlib.contextmanager
def databases(both: list[Checkout]) -> Iterator[list[Side]]:
    """A side for each checkout: an empty database with its schema, dropped at the end."""
    with contextlib.ExitStack() as stack:
        yield [stack.enter_context(_database(checkout)) for checkout in both]


@contextlib.contextmanager
def _database(checkout: Checkout) -> Iterator[Side]:
    name = f"verse_benchmark_{checkout.name}"
    url = create_database(name)
    with psycopg.connect(url, autocommit=True) as database:
        side = Side(checkout, url, database)
        side.manage("migrate", "--verbosity", "0")
        yield side
    drop_database(url, name)


def drop_database(url: str, name: str) -> None:
    """Drop a database, even if it is used. ``url`` is its own."""
    with psycopg.connect(url.replace(f"/{name}?", "/postgres?"), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")


@contextlib.contextmanager
def serving(sides: list[Side], **settings: str) -> Iterator[None]:
    """Run a server of each side, without limits, with one worker unless ``settings`` differ."""
    with contextlib.ExitStack() as stack:
        for side in sides:
            values = {"DATABASE_URL": side.url} | NO_LIMITS | settings
            side.server = Server(values, root=side.checkout.root)
            stack.callback(side.end_server)
        yield


@dataclass
class Costs:
    """Milliseconds a request: wall time of each; processor time of workers and backends by block.

    Each block is counted until ``work`` returns, with what the server does in the background.
    """

    wall: list[float] = field(default_factory=list)
    worker: list[float] = field(default_factory=list)
    backend: list[float] = field(default_factory=list)

    def summary(self) -> dict[str, float]:
        """The median of the wall time and its 95th percentile; the median block's CPU."""
        p50, p95 = np.quantile(self.wall, [0.5, 0.95])
        worker, backend = np.median(self.worker), np.median(self.backend)
        return {"p50": float(p50), "p95": float(p95)} | {
            "worker": float(worker),
            "backend": float(backend),
        }


Work = Callable[[Side, int], list[float]]  # runs a block; returns the wall ms of each request


def in_turns(sides: list[Side], work: Work, *, blocks: int) -> dict[str, dict[str, float]]:
    """Run blocks on all sides, each time another first. The summary of costs by side's name."""
    costs = {side.name: Costs() for side in sides}
    for block in range(WARM_UP_BLOCKS + blocks):
        for side in sides if block % 2 else reversed(sides):
            measured = run_block(side, work, block)
            if block >= WARM_UP_BLOCKS:
                costs[side.name].wall += measured.wall
                costs[side.name].worker += measured.worker
                costs[side.name].backend += measured.backend
    return {name: cost.summary() for name, cost in costs.items()}


def run_block(side: Side, work: Work, block: int) -> Costs:
    """The costs of one block."""
    workers, backends = cpu_by_pid(side.worker_pids()), cpu_by_pid(side.backend_pids())
    wall = work(side, block)
    backend_ms = since(backends, side.backend_pids())
    worker_ms = since(workers, side.worker_pids())
    return Costs(wall, [worker_ms / len(wall)], [backend_ms / len(wall)])


def since(before: Mapping[int, float], pids: list[int]) -> float:
    """Processor time since ``before``, with all of processes that started later."""
    now = cpu_by_pid(pids)
    return sum(ms - before.get(pid, 0) for pid, ms in now.items())


def clock_ms() -> float:
    """The wall clock."""
    return time.perf_counter() * 1000
