"""Measures what one user who sends as much as they can costs the turns of others.

    .venv/bin/python -m benchmarks.busy_user [--rounds 5]

Two workers with memory and the default limits, and a fake of the model and of the embedding
service. The busy user posts in 20 chats at once without a pause, whatever is answered. Ten others
each post a message every 1.2 s: alone, then meanwhile, in turns. The busy user's client and
the fakes are processes of their own, but use the same cores. About two minutes.
"""

import argparse
import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
import numpy as np
from django.contrib.auth.models import User
from django.db import connection

from benchmarks.load import chats
from benchmarks.sides import clock_ms
from benchmarks.stage import model, scratch_database, serving
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from tests.support import Server

OTHERS = 10
TURNS = 10  # of each of the others, in each half of a round
PAUSE_S = 1.2  # so that they stay under their own limit
BUSY_CHATS = 20
BODY = {"content": "What did I say about the garden?"}
LIMITS = {"THROTTLE_MESSAGES": "60/min", "STREAMS_PER_USER": "5"}  # the defaults

Other = tuple[dict[str, str], str]  # headers and a chat's URL


def main() -> None:
    """Print the table, or post as the busy user."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.busy:
        asyncio.run(post_without_pause(*options.busy))
        return
    with (
        model("--tokens", "5") as url,
        scratch_database() as database,
        serving(
            database, url, OPENAI_BASE_URL=url, OPENAI_API_KEY="sk-benchmark", **LIMITS
        ) as server,
    ):
        report(*asyncio.run(measure(server, options.rounds)))


async def measure(server: Server, rounds: int) -> tuple[list[float], list[float], Counter[str]]:
    """Milliseconds of the others' turns alone and meanwhile, and the busy user's status codes."""
    others = await asyncio.to_thread(chats, OTHERS)
    busy = await asyncio.to_thread(busy_chats)
    alone: list[float] = []
    meanwhile: list[float] = []
    answers: Counter[str] = Counter()
    async with httpx2.AsyncClient(base_url=server.url, timeout=60, trust_env=False) as client:
        await turns(client, others)  # warms up
        for _ in range(rounds):
            alone += await turns(client, others)
            with posting(server.url, busy, answers):
                meanwhile += await turns(client, others)
    return alone, meanwhile, answers


def busy_chats() -> list[str]:
    """The busy user's token and their chats' URLs."""
    user = User.objects.create(username="busy")
    chats = [StandaloneChat.objects.create(user=user).pk for _ in range(BUSY_CHATS)]
    token = create_token(user)[1]
    connection.close()
    return [token, *(f"/api/chats/{chat}/messages/" for chat in chats)]


@contextmanager
def posting(url: str, busy: list[str], answers: Counter[str]) -> Iterator[None]:
    """The busy user's client, once it posts; then its status codes are counted."""
    command = [sys.executable, "-m", "benchmarks.busy_user", "--busy", url, *busy]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stdin=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout
        assert process.stdin
        process.stdout.readline()
        yield
        process.stdin.close()
        for line in process.stdout:
            status, count = line.split()
            answers[status] += int(count)


async def turns(client: httpx2.AsyncClient, users: list[Other]) -> list[float]:
    """Milliseconds of each turn of all users."""

    async def talk(number: int, headers: dict[str, str], address: str) -> list[float]:
        await asyncio.sleep(PAUSE_S * number / len(users))
        times = []
        for _ in range(TURNS):
            started = clock_ms()
            response = await client.post(address, json=BODY, headers=headers)
            response.raise_for_status()
            times.append(clock_ms() - started)
            await asyncio.sleep(PAUSE_S)
        return times

    lists = await asyncio.gather(*(talk(number, *user) for number, user in enumerate(users)))
    return [time for times in lists for time in times]


async def post_without_pause(url: str, token: str, *addresses: str) -> None:
    """Post in all chats until the standard input ends; print how often each status came."""
    statuses: Counter[int] = Counter()
    headers = {"Authorization": f"Token {token}"}
    async with httpx2.AsyncClient(
        base_url=url, headers=headers, timeout=60, trust_env=False
    ) as client:

        async def post(address: str) -> None:
            while True:
                statuses[(await client.post(address, json=BODY)).status_code] += 1

        tasks = [asyncio.create_task(post(address)) for address in addresses]
        print("posting", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        for task in tasks:
            task.cancel()
    for status, count in statuses.items():
        print(status, count)


def report(alone: list[float], meanwhile: list[float], answers: Counter[str]) -> None:
    """Print the times of the others, and what the busy user was answered."""
    print("| turns of ten others | p50 ms | p95 ms |\n|---|---|---|")
    p95s = []
    for name, times in (("alone", alone), ("meanwhile", meanwhile)):
        p50, p95 = np.percentile(times, [50, 95])
        p95s.append(p95)
        print(f"| {name} | {p50:.1f} | {p95:.1f} |")
    print(f"\np95 is {p95s[1] / p95s[0]:.2f} times the one alone")
    print("The busy user's answers:", ", ".join(f"{n:,} x {s}" for s, n in answers.most_common()))


if __name__ == "__main__":
    main()
