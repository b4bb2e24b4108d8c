"""A real server in separate processes, for tests that kill it, stop it or send it requests."""

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

import httpx2
from django.db import connection

from fake_openai import FakeOpenAI

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 120  # much more than needed: with 20 processes on 2 cores a server starts in 60


def database_url(connection: Any) -> str:
    """The URL of a Django connection's database, for another process."""
    params = connection.get_connection_params()
    query = urlencode(
        {name: params[name] for name in ("host", "port", "user", "password") if params.get(name)}
    )
    return f"postgresql:///{quote(connection.settings_dict['NAME'])}?{query}"


def wait_for(condition: Callable[[], object], timeout_s: float = PATIENCE_S) -> None:
    """Wait until the condition is true. Raises TimeoutError."""
    until = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError
        time.sleep(0.05)


def free_port() -> int:
    """A port without a listener."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def clean_environment(**values: str) -> dict[str, str]:
    """This process's environment without Verse's settings, with ``values``."""
    names = {"PATH", "HOME", "LANG", "TMPDIR", "PGOPTIONS"} & os.environ.keys()
    return {name: os.environ[name] for name in names} | {"PYTHONUNBUFFERED": "1"} | values


class Server:
    """gunicorn with Verse on a free port."""

    def __init__(
        self, environment: dict[str, str], *, wait: bool = True, root: Path = ROOT
    ) -> None:
        self.port = int(environment.get("PORT") or free_port())
        self.url = f"http://127.0.0.1:{self.port}"
        values = {
            "WEB_CONCURRENCY": "1",
            "SECRET_KEY": "test",
            "PORT": str(self.port),
        } | environment
        self._clients: list[httpx2.Client] = []
        self._log = Path(f"/tmp/verse-test-server-{self.port}.log")
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [
                    sys.executable,
                    "-m",
                    "gunicorn",
                    environment.pop("APPLICATION", "verse.asgi:application"),
                ],
                cwd=root,
                env=clean_environment(**values),
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        if wait:
            self.wait_until_ready(int(values["WEB_CONCURRENCY"]))

    @property
    def log(self) -> str:
        """The server's output."""
        return self._log.read_text()

    def wait_until_ready(self, workers: int) -> None:
        """Wait until this many workers have logged that they are ready."""
        until = time.monotonic() + PATIENCE_S
        while self.log.count("Application startup complete.") < workers:
            if self.process.poll() is not None or time.monotonic() > until:
                raise RuntimeError(f"The server did not start:\n{self.log}")
            time.sleep(0.05)

    def client(self, token: str = "", **headers: str) -> httpx2.Client:
        """A client with one connection, so to one worker; closed with the server."""
        if token:
            headers["Authorization"] = f"Token {token}"
        client = httpx2.Client(
            base_url=self.url, headers=headers, timeout=PATIENCE_S, trust_env=False
        )
        self._clients.append(client)
        return client

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to gunicorn's master."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """Send SIGKILL to the master and all workers at once."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(PATIENCE_S)

    def close_clients(self) -> None:
        """Close the connections of all clients."""
        for client in self._clients:
            client.close()

    def end(self) -> None:
        """End all processes and delete the log."""
        self.kill()
        self.close_clients()
        self._log.unlink(missing_ok=True)


def serve_test_database(blocker: Any, fake: FakeOpenAI, **environment: str) -> Iterator[Server]:
    """A server for several tests on this process's test database: a start costs 3 s of CPU.

    Its periodic tasks must not touch the database of other tests: the root's conftest.py lets one
    process run all tests that share it, and it ends after them.
    """
    with blocker.unblock():
        usual = {"DATABASE_URL": database_url(connection), "LLM_BASE_URL": fake.base_url}
    running = Server(usual | environment)
    yield running
    running.end()


def memory_settings(fake: FakeOpenAI) -> dict[str, str]:
    """For a server with memory that has the time it needs, and no rate limit."""
    return {
        "OPENAI_BASE_URL": fake.base_url,
        "OPENAI_API_KEY": "sk-test-0123456789",
        "RAG_TIMEOUT": "30",
        "THROTTLE_MESSAGES": "off",
    }
