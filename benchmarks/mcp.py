"""Measures what MCP costs a worker: its memory, and the processor time of a search.

    .venv/bin/python -m benchmarks.mcp [--calls 200]

Uses a scratch database on the configured server, and a worker with EMBEDDINGS=none.
"""

import argparse
import os
from collections.abc import Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.contrib.auth.models import User

from benchmarks.processes import cpu_ms, resident_mb
from benchmarks.stage import scratch_database, workers_of
from chat.auth.api_tokens import create_token
from tests.support import Server

SEARCH = {"name": "search", "arguments": {"query": "What is my dog called?"}}
CALL = {"jsonrpc": "2.0", "id": 1, "method": "tools/call", "params": SEARCH}
ADDRESS = "/api/memory/search/?q=What+is+my+dog+called%3F"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--calls", type=int, default=200)
    calls = parser.parse_args().calls
    with scratch_database() as database:
        key = create_token(User.objects.create(username="alice"))[1]
        server = Server({"DATABASE_URL": database, "EMBEDDINGS": "none"})
        try:
            compare(server, key, calls)
        finally:
            server.end()


def compare(server: Server, key: str, calls: int) -> None:
    """The API first: MCP makes the worker larger for ever."""
    (worker,) = workers_of(server)
    accept = "application/json, text/event-stream"
    api = server.client(key)
    mcp = server.client(Authorization=f"Bearer {key}", Accept=accept)
    print("| | RSS MB | ms CPU a search |\n|---|---|---|")
    for name, call in (
        ("API", lambda: api.get(ADDRESS)),
        ("MCP", lambda: mcp.post("/mcp", json=CALL)),
    ):
        spent_ms = cpu_of(call, worker, calls)
        print(f"| {name} | {resident_mb(worker):.0f} | {spent_ms:.1f} |", flush=True)


def cpu_of(call: Callable[[], Any], worker: int, calls: int) -> float:
    """The worker's milliseconds a call, after a few."""
    for _ in range(5):
        call().raise_for_status()
    before = cpu_ms([worker])
    for _ in range(calls):
        call().raise_for_status()
    return (cpu_ms([worker]) - before) / calls


if __name__ == "__main__":
    main()
