"""Measures the workers' memory over many turns.

    .venv/bin/python -m benchmarks.load [--turns 20000]

Two workers without memory, 20 users at once; the fake model runs in its own process.
"""

import argparse
import asyncio
import os

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
from django.contrib.auth.models import User
from django.db import connection

from benchmarks.processes import resident_mb
from benchmarks.stage import model, scratch_database, serving, workers_of
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from tests.support import Server

TURNS_AT_ONCE = 20


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=20_000)
    options = parser.parse_args()
    with (
        model("--tokens", "5", "--tokens-per-second", "100000") as url,
        scratch_database() as database,
        serving(database, url) as server,
    ):
        report_memory(asyncio.run(turns(server, options.turns)), options.turns)


def chats(count: int) -> list[tuple[dict[str, str], str]]:
    """Headers and a chat's URL for each of ``count`` users."""
    addresses = []
    for number in range(count):
        user, _ = User.objects.get_or_create(username=f"load{number}")
        address = f"/api/chats/{StandaloneChat.objects.create(user=user).pk}/messages/"
        addresses.append(({"Authorization": f"Token {create_token(user)[1]}"}, address))
    connection.close()
    return addresses


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
            sizes.append((tenth * count // 10, sum(map(resident_mb, workers_of(server)))))
    return sizes


async def talk(
    client: httpx2.AsyncClient, headers: dict[str, str], address: str, count: int
) -> None:
    """Send ``count`` turns one after the other. Raises if a turn fails."""
    for _ in range(count):
        response = await client.post(address, json={"content": "Hello"}, headers=headers)
        response.raise_for_status()


def report_memory(sizes: list[tuple[int, float]], count: int) -> None:
    """Print the memory by turns, and its growth after caches and pools are full."""
    print("| turns | workers MB |\n|---|---|")
    for done, size in sizes:
        print(f"| {done:,} | {size:.1f} |")
    growth = (sizes[-1][1] / sizes[1][1] - 1) * 100
    print(f"\nGrowth from {count // 10:,} to {count:,} turns: {growth:.1f} %")


if __name__ == "__main__":
    main()
