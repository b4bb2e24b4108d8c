"""Databases, a server and a fake model for benchmarks, in separate processes where they compete."""

import contextlib
import subprocess
import sys
import time
from collections.abc import Iterator

import psycopg
from django.core.management import call_command
from django.db import connection

from benchmarks.processes import children_of
from retrieval import runtime
from tests.support import Server, database_url, free_port

DATABASE = "verse_benchmark"


def create_database(name: str) -> str:
    """An empty database on the configured server. Replaces an earlier one. Returns its URL."""
    connection.settings_dict["NAME"] = "postgres"
    with psycopg.connect(database_url(connection), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {name}")
    connection.close()
    connection.settings_dict["NAME"] = name
    return database_url(connection)


@contextlib.contextmanager
def scratch_database() -> Iterator[str]:
    """A database with the current schema, which this process uses too. Yields its URL."""
    url = create_database(DATABASE)
    runtime.reset()  # types have other oids than in the one before
    call_command("migrate", verbosity=0)
    yield url
    connection.close()


@contextlib.contextmanager
def model(*options: str) -> Iterator[str]:
    """Run the fake model in a separate process. Yields its base URL."""
    port = free_port()
    command = [sys.executable, "-m", "fake_openai", "--port", str(port), *options]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        time.sleep(1)
        yield f"http://127.0.0.1:{port}/v1"
    finally:
        process.kill()
        process.wait()


@contextlib.contextmanager
def serving(database: str, url: str, **environment: str) -> Iterator[Server]:
    """Run a server with two workers and without limits."""
    limits = {"THROTTLE_MESSAGES": "off", "STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "2"}
    server = Server({"DATABASE_URL": database, "LLM_BASE_URL": url} | limits | environment)
    try:
        yield server
    finally:
        server.end()


def workers_of(server: Server) -> list[int]:
    """The process numbers of the workers."""
    return children_of(server.process.pid)
