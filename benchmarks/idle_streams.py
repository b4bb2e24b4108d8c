"""Measures the server while 1,000 users wait for their answers to begin.

    .venv/bin/python -m benchmarks.idle_streams [--streams 1000] [--seconds 30]

Two workers without memory. The fake model, in its own process, sends nothing for some time. Another
client asks for ``/healthz`` ten times a second on new connections: before, while the streams begin,
while they are idle, and while all of them end.
"""

import argparse
import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np

from benchmarks.load import chats
from benchmarks.processes import cpu_ms, resident_mb
from benchmarks.sides import clock_ms
from benchmarks.stage import model, scratch_database, serving, workers_of
from benchmarks.streams import BODY, first_token_ms, request_of
from tests.support import Server

START_S = 10  # from the first stream's start to the last one's
PROBE_EVERY_S = 0.1
PROBE = b"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n\r\n"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--seconds", type=int, default=30, help="how long they are idle")
    options = parser.parse_args()
    silent_s = START_S + options.seconds
    with (
        model("--tokens", "5", "--first-token", str(silent_s)) as url,
        scratch_database() as database,
        serving(database, url) as server,
    ):
        asyncio.run(measure(server, options.streams, options.seconds))


async def measure(server: Server, count: int, idle_s: int) -> None:
    """Print a line for each phase. Raises if a stream does not end well."""
    users = await asyncio.to_thread(chats, count)
    print("| | healthz p50 ms | p95 | longest | workers CPU % | workers MB |")
    print("|---|---|---|---|---|---|")
    async with phase(server, "no stream"):
        await asyncio.sleep(5)
    async with phase(server, f"{count:,} streams begin"):
        streams = [
            asyncio.create_task(stream(server.port, *user, delay_s=number * START_S / count))
            for number, user in enumerate(users)
        ]
        await asyncio.sleep(START_S + 2)
    async with phase(server, f"{count:,} idle streams"):
        await asyncio.sleep(idle_s - 4)
    async with phase(server, "they are answered and end"):
        await asyncio.gather(*streams)


async def stream(port: int, headers: dict[str, str], address: str, *, delay_s: float) -> None:
    """A whole stream of an answer, begun later. Raises if it does not end well."""
    await asyncio.sleep(delay_s)
    lines = f"Authorization: {headers['Authorization']}\r\nAccept: text/event-stream\r\n"
    request = request_of(address, lines, BODY)
    await first_token_ms(port, request, first=b"event: delta", end=b"event: done")


@asynccontextmanager
async def phase(server: Server, name: str) -> AsyncIterator[None]:
    """Ask for healthz meanwhile; then print the line."""
    workers = workers_of(server)
    started, before = clock_ms(), cpu_ms(workers)
    times: list[float] = []
    probes = asyncio.create_task(probe(server.port, times))
    yield
    probes.cancel()
    share = (cpu_ms(workers) - before) / (clock_ms() - started) * 100
    memory = sum(map(resident_mb, workers))
    p50, p95 = np.percentile(times, [50, 95])
    print(f"| {name} | {p50:.1f} | {p95:.1f} | {max(times):.0f} | {share:.0f} | {memory:.0f} |")


async def probe(port: int, times: list[float]) -> None:
    """Milliseconds of each probe, on a new connection. Raises if the server is not healthy."""
    while True:
        times.append(await first_token_ms(port, PROBE, first=b" 200 ", end=b""))
        await asyncio.sleep(PROBE_EVERY_S)


if __name__ == "__main__":
    main()
