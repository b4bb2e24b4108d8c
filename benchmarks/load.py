"""Measures many streams at once on the real server, and its memory over many turns.

    .venv/bin/python -m benchmarks.load [--streams 100] [--rounds 3] [--turns 20000]

Streams are compared with a bare streaming endpoint. Everything runs on this machine: the fake model
in its own process, the server with two workers, and the client. Times to the first token start when
the request is sent; the fake model sends its first token at once.
"""

import argparse
import asyncio
import contextlib
import itertools
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
import psycopg
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from tests.support import Server, database_url, free_port

DATABASE = "verse_benchmark"
TURNS_AT_ONCE = 20


def main() -> None:
    """Print both tables."""
    options = parse()
    with (
        model("--tokens", "50", "--tokens-per-second", "25") as url,
        scratch_database() as database,
    ):
        report_head()
        with serving(database, url) as server:
            report_streams("Verse", server, asyncio.run(streams(server, options)))
        with serving(database, url, APPLICATION="benchmarks.bare:application") as server:
            report_streams("bare endpoint", server, asyncio.run(streams(server, options)))
    with (
        model("--tokens", "5", "--tokens-per-second", "100000") as url,
        scratch_database() as database,
        serving(database, url) as server,
    ):
        report_memory(asyncio.run(turns(server, options.turns)), options.turns)


def parse() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=100, help="streams at once")
    parser.add_argument("--rounds", type=int, default=5, help="consecutive streams of each user")
    parser.add_argument("--burst", action="store_true", help="all users start at once")
    parser.add_argument("--turns", type=int, default=20_000, help="turns of the memory run")
    return parser.parse_args()


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
def scratch_database() -> Iterator[str]:
    """A separate, migrated database on the configured server. Yields its URL."""
    connection.settings_dict["NAME"] = "postgres"
    with psycopg.connect(database_url(connection), autocommit=True) as server:
        server.execute(f"DROP DATABASE IF EXISTS {DATABASE} WITH (FORCE)")
        server.execute(f"CREATE DATABASE {DATABASE}")
    connection.close()
    connection.settings_dict["NAME"] = DATABASE
    call_command("migrate", verbosity=0)
    yield database_url(connection)
    connection.close()


@contextlib.contextmanager
def serving(database: str, url: str, **environment: str) -> Iterator[Server]:
    """Run a server with two workers and without limits."""
    limits = {"THROTTLE_MESSAGES": "off", "STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "2"}
    server = Server({"DATABASE_URL": database, "LLM_BASE_URL": url} | limits | environment)
    try:
        yield server
    finally:
        server.end()


def chats(count: int) -> list[tuple[dict[str, str], str]]:
    """Headers and a chat's URL for each of ``count`` users."""
    addresses = []
    for number in range(count):
        user, _ = User.objects.get_or_create(username=f"load{number}")
        address = f"/api/chats/{StandaloneChat.objects.create(user=user).pk}/messages/"
        addresses.append(({"Authorization": f"Token {create_token(user)[1]}"}, address))
    connection.close()
    return addresses


async def streams(server: Server, options: argparse.Namespace) -> list[float | None]:
    """Seconds to the first token of each stream, or None if it failed."""
    users = await asyncio.to_thread(chats, options.streams)

    async def listen(number: int) -> list[float | None]:
        # Users start one after the other within 2 s, the duration of a stream; then each goes on.
        await asyncio.sleep(0 if options.burst else number * 2 / options.streams)
        return [await stream(server.port, *users[number]) for _ in range(options.rounds)]

    times = await asyncio.gather(*(listen(number) for number in range(options.streams)))
    return list(itertools.chain.from_iterable(times))


async def stream(port: int, headers: dict[str, str], address: str) -> float | None:
    """Seconds to the first token, or None if the stream did not end with ``done``.

    Uses bare sockets: an HTTP library would use as much processor time as a worker.
    """
    body = b'{"content": "Hello"}'
    lines = [
        f"POST {address} HTTP/1.1",
        "Host: 127.0.0.1",
        "Accept: text/event-stream",
        "Connection: close",
    ]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body)}"]
    head = "\r\n".join(
        [*lines, *(f"{name}: {value}" for name, value in headers.items()), "", ""]
    ).encode()
    started = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head + body)
        await reader.readuntil(b"event: delta")
        first = time.monotonic() - started
        rest = await reader.read(-1)
    except asyncio.IncompleteReadError:
        return None
    finally:
        writer.close()
    return first if b"event: done" in rest else None


async def turns(server: Server, count: int) -> list[tuple[int, float]]:
    """Memory of the workers in MB after each tenth of the turns."""
    users = await asyncio.to_thread(chats, TURNS_AT_ONCE)
    sizes: list[tuple[int, float]] = []
    async with httpx2.AsyncClient(base_url=server.url, timeout=60) as client:
        for tenth in range(11):
            if tenth:
                await asyncio.gather(
                    *(talk(client, *user, count // 10 // TURNS_AT_ONCE) for user in users)
                )
            sizes.append((tenth * count // 10, workers_mb(server)))
    return sizes


async def talk(
    client: httpx2.AsyncClient, headers: dict[str, str], address: str, count: int
) -> None:
    """Send ``count`` turns one after the other. Raises if a turn fails."""
    for _ in range(count):
        response = await client.post(address, json={"content": "Hello"}, headers=headers)
        response.raise_for_status()


def workers_mb(server: Server) -> float:
    """Resident memory of all workers."""
    statm = (Path(f"/proc/{pid}/statm").read_text().split() for pid in workers_of(server))
    pages = sum(int(fields[1]) for fields in statm)
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def workers_cpu_s(server: Server) -> float:
    """Processor time of all workers since their start."""
    stats = [Path(f"/proc/{pid}/stat").read_text() for pid in workers_of(server)]
    fields = [stat.rsplit(")", 1)[1].split() for stat in stats]
    ticks = sum(int(values[11]) + int(values[12]) for values in fields)  # utime, stime
    return ticks / os.sysconf("SC_CLK_TCK")


def workers_of(server: Server) -> list[int]:
    """The process numbers of the workers."""
    pid = server.process.pid
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def report_head() -> None:
    """Print the table's head. The processor time includes the workers' start."""
    print("| | streams | failed | first token p50 ms | p95 ms | CPU ms a stream |")
    print("|---|---|---|---|---|---|")


def report_streams(name: str, server: Server, times: list[float | None]) -> None:
    """Print a line of the table, while the server runs."""
    cuts = statistics.quantiles([time_s for time_s in times if time_s is not None], n=20)
    middle, high, cpu = cuts[9] * 1000, cuts[18] * 1000, workers_cpu_s(server) / len(times) * 1000
    failed = times.count(None)
    print(
        f"| {name} | {len(times)} | {failed} | {middle:.0f} | {high:.0f} | {cpu:.1f} |", flush=True
    )


def report_memory(sizes: list[tuple[int, float]], count: int) -> None:
    """Print the memory by turns, and its growth after caches and pools are full."""
    print("\n| turns | workers MB |\n|---|---|")
    for done, size in sizes:
        print(f"| {done:,} | {size:.1f} |")
    growth = (sizes[-1][1] / sizes[1][1] - 1) * 100
    print(f"\nGrowth from {count // 10:,} to {count:,} turns: {growth:.1f} %")


if __name__ == "__main__":
    main()
