"""Measures the memory of a worker without a bundled model, before and after many turns.

    .venv/bin/python -m benchmarks.memory [--turns 200] [--workers 2]

Memory that is shared with other processes counts fully in resident memory (RSS), in part in
proportional memory (PSS), and not in unique memory (USS). The figures are of the largest worker.
"""

import argparse
import os
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.conf import settings

from benchmarks.load import scratch_database, serving, workers_of
from benchmarks.turn import remember
from fake_openai import Answer, FakeOpenAI
from tests.support import Server

MESSAGES = 200
TURNS_PER_CLIENT = 20  # a client's connection goes to one worker, so clients are replaced


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=200)
    parser.add_argument("--workers", type=int, default=2)
    options = parser.parse_args()
    print("| worker | RSS MB | PSS MB | USS MB |\n|---|---|---|---|")
    with scratch_database() as url, FakeOpenAI() as fake:
        fake.chat.default = Answer("I see.")
        settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY = fake.base_url, "sk-benchmark"
        token = remember(MESSAGES)
        values = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark"}
        with serving(url, fake.base_url, **values, WEB_CONCURRENCY=str(options.workers)) as server:
            report("started", server)
            talk(server, token, options.turns)
            report(f"after {options.turns:,} turns of {options.workers}", server)


def talk(server: Server, token: str, turns: int) -> None:
    """Send turns one after the other, spread over the workers. Raises if a turn fails."""
    for number in range(turns):
        if number % TURNS_PER_CLIENT == 0:
            client = server.client(token)
            chat = client.post("/api/chats/", json={}).json()["id"]
        body = {"content": f"What did I say about the garden, number {number}?"}
        client.post(f"/api/chats/{chat}/messages/", json=body).raise_for_status()


def report(name: str, server: Server) -> None:
    """Print a line of the table, while the server runs."""
    sizes = max(weigh(pid) for pid in workers_of(server))
    print(f"| {name} | {' | '.join(f'{size:.0f}' for size in sizes)} |", flush=True)


def weigh(pid: int) -> tuple[float, float, float]:
    """RSS, PSS and USS of a process, in megabytes."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:]
    mb = {
        name: int(size) * 1024 / 1e6
        for name, size, _ in (line.replace(":", " ").split() for line in lines)
    }
    return mb["Rss"], mb["Pss"], mb["Private_Clean"] + mb["Private_Dirty"]


if __name__ == "__main__":
    main()
