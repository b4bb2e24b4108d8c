"""Measures what a turn costs a server that embeds its answers, and one that leaves it to workers.

    .venv/bin/python -m benchmarks.embed_queue [--quick] [--json FILE]

Three servers of this checkout, in turns, one for each value of EMBED_QUEUE. Each has one worker
process and a database of its own, in which a user has 200 embedded messages. No ``embed_worker``
runs: the processor time is that of the server and of its sessions in the database. Needs Debian's
redis-server.
"""

import argparse
import contextlib
import os
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks import results, turn
from benchmarks.processes import resident_mb
from benchmarks.sides import NO_LIMITS, Checkout, Side, databases, in_turns
from fake_openai import FakeOpenAI
from fake_openai.chat import Echo
from tests.redis_server import Redis
from tests.support import ROOT, Server

QUEUES = ("inline", "procrastinate", "celery")
COLUMNS = ("worker", "backend", "p50")


def main() -> None:
    """Measure, and print each figure, and its ratio to that of ``inline``."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--quick", action="store_true", help="fewer samples")
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = measure(blocks=6 if options.quick else 20)
    print("| EMBED_QUEUE | server CPU ms | database CPU ms | p50 ms | server MB |")
    print("|---|---|---|---|---|")
    for queue, costs in figures.items():
        cells = " | ".join(f"{costs[column]:.1f}" for column in (*COLUMNS, "memory"))
        print(f"| {queue} | {cells} |")
    results.finish({"figures": figures, "ratios": ratios_of(figures)}, options.json)


def measure(*, blocks: int) -> dict[str, dict[str, float]]:
    """The costs of a turn, by EMBED_QUEUE."""
    with (
        databases([Checkout(name, ROOT) for name in QUEUES]) as sides,
        FakeOpenAI() as fake,
        Redis() as redis,
        contextlib.ExitStack() as stack,
    ):
        fake.chat.default = Echo()  # a new text each time, so that it must be embedded
        service = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark"}
        tokens = {side.name: turn.remember(side, turn.MESSAGES, service) for side in sides}
        for side in sides:
            queue = {"EMBED_QUEUE": side.name, "CELERY_BROKER_URL": redis.url}
            stack.enter_context(serving(side, service | queue))
        costs = in_turns(sides, partial(turn.turns, fake=fake, tokens=tokens), blocks=blocks)
        for side in sides:
            costs[side.name]["memory"] = max(map(resident_mb, side.worker_pids()))
        return costs


@contextlib.contextmanager
def serving(side: Side, settings: dict[str, str]) -> Iterator[None]:
    """Run a server of this side, whose engine has its tables."""
    side.manage("migrate", "--verbosity", "0", **settings)
    side.server = Server({"DATABASE_URL": side.url} | NO_LIMITS | settings)
    try:
        yield
    finally:
        side.end_server()


def ratios_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What each costs, divided by what it costs with EMBED_QUEUE=inline."""
    return {
        f"{queue}, {column}": round(costs[column] / figures["inline"][column], 2)
        for queue, costs in figures.items()
        for column in COLUMNS
    }


if __name__ == "__main__":
    main()
