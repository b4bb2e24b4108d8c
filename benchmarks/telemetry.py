"""Measures what metrics and traces cost a turn: processor time, by the processes' own clocks.

    .venv/bin/python -m benchmarks.telemetry [--turns 300]

Uses a scratch database on the configured server, and a fake model and embedding service in a
separate process. Metrics: how often a turn in this process counts what, and what each costs with
and without them, in turns; the difference of whole turns is smaller than their noise. Traces: turns
of two workers in turns, one of which sends its spans to a receiver in this process.
"""

import argparse
import itertools
import os
import statistics
import tempfile
import time
from collections import Counter
from collections.abc import Callable

import django

os.environ["PROMETHEUS_MULTIPROC_DIR"] = tempfile.mkdtemp(prefix="verse-benchmark-")
os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.server_settings")
django.setup()

from django.conf import settings
from django.contrib.auth.models import User
from django.db import connection
from prometheus_client import CollectorRegistry
from prometheus_client.multiprocess import MultiProcessCollector
from rest_framework.test import APIClient

from benchmarks.processes import cpu_ms
from benchmarks.stage import model, scratch_database, workers_of
from chat.auth.api_tokens import create_token
from chat.memory.embed import finish_embedding_jobs
from retrieval.telemetry import metrics
from tests.otlp_receiver import Receiver
from tests.support import Server

BLOCK = 5  # turns
WARM_UP = 4  # blocks
Turn = Callable[[], object]
# What a turn counts, by a sample that grows by 1 with it.
OPERATIONS: dict[str, Callable[[], object]] = {
    "verse_pool_wait_seconds_count": lambda: metrics.waited_for_connection(0.0001),
    "verse_first_token_seconds_count": lambda: metrics.first_token_after(0.3),
    "verse_recall_seconds_count": lambda: metrics.recalled_in(0.02, mode="hybrid"),
    "verse_embedding_calls_total": lambda: (
        metrics.embedding_request_sent(),
        metrics.embedding_tokens_used(12, cost_usd=0.000001),
    ),
    "verse_turns_total": lambda: (metrics.answer_started(), metrics.answer_ended("complete")),
}
ROUNDS, CALLS = 20, 1_000
numbers = itertools.count()  # of questions: one that was asked before needs no embedding


def main() -> None:
    """Print both tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=100)
    turns = parser.parse_args().turns
    with scratch_database() as database, model() as url:
        user = User.objects.create(username="alice")
        token = create_token(user)[1]
        services = {"LLM_BASE_URL": url, "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "sk-test-0"}
        with_metrics(services, token, turns)
        connection.close()
        with_traces(services | {"DATABASE_URL": database}, token, turns // BLOCK)


def with_metrics(services: dict[str, str], token: str, turns: int) -> None:
    """How often a turn counts what, and what that costs more than with metrics that are off."""
    for name, value in services.items():
        setattr(settings, name, value)
    settings.LLM_CONFIGURED, settings.THROTTLE_MESSAGES = True, None
    settings.ALLOWED_HOSTS = ["testserver"]
    client = APIClient()
    client.credentials(HTTP_AUTHORIZATION=f"Token {token}")
    chat = client.post("/api/chats/", {}, format="json").json()["id"]
    metrics.enable(CollectorRegistry())
    before = counted()
    for _ in range(turns):
        body = {"content": f"Question {next(numbers)}?"}
        client.post(f"/api/chats/{chat}/messages/", body, format="json")
        finish_embedding_jobs()
    after, total_us = counted(), 0.0
    for name, operation in OPERATIONS.items():
        times, cost_us = (after[name] - before[name]) / turns, cost_of(operation)
        total_us += times * cost_us
        print(f"{name}: {times:.1f} times a turn, {cost_us:.2f} µs CPU each")
    print(f"metrics: {total_us:.0f} µs CPU a turn", flush=True)


def counted() -> dict[str, float]:
    """Each sample's value; those with labels added up."""
    values: Counter[str] = Counter()
    for family in MultiProcessCollector(None).collect():  # type: ignore[no-untyped-call]
        for sample in family.samples:
            values[sample.name] += sample.value
    return values


def cost_of(operation: Callable[[], object]) -> float:
    """Microseconds that it takes longer with metrics, by this process's clock, in turns."""
    differences = []
    for _ in range(ROUNDS):
        metrics.disable()
        without = cpu_us(operation)
        metrics.enable(CollectorRegistry())
        differences.append(cpu_us(operation) - without)
    return statistics.median(differences)


def cpu_us(operation: Callable[[], object]) -> float:
    began = time.process_time_ns()
    for _ in range(CALLS):
        operation()
    return (time.process_time_ns() - began) / 1_000 / CALLS


def with_traces(services: dict[str, str], token: str, blocks: int) -> None:
    """Two servers with one worker each."""
    usual = {"WEB_CONCURRENCY": "1", "THROTTLE_MESSAGES": "off"} | services
    with Receiver() as receiver:
        traced = usual | {"OTEL_EXPORTER_OTLP_ENDPOINT": receiver.url}
        servers = {"off": Server(dict(usual)), "traces": Server(traced)}
        try:
            costs = costs_of(servers, token, blocks)
        finally:
            for server in servers.values():
                server.end()
    print_table("turn in a worker", costs)


def costs_of(servers: dict[str, Server], token: str, blocks: int) -> dict[str, list[float]]:
    costs: dict[str, list[float]] = {name: [] for name in servers}
    clients = {name: server.client(token) for name, server in servers.items()}
    chats = {name: clients[name].post("/api/chats/", json={}).json()["id"] for name in servers}
    for block in range(WARM_UP + blocks):
        for name in sorted(servers, reverse=bool(block % 2)):
            server = servers[name]
            address = f"/api/chats/{chats[name]}/messages/"

            def turn(name: str = name, address: str = address) -> None:
                body = {"content": f"Question {next(numbers)}?"}
                clients[name].post(address, json=body).raise_for_status()

            before = cpu_ms(workers_of(server))
            take_turns(turn)
            costs[name].append((cpu_ms(workers_of(server)) - before) / BLOCK)
    return costs


def take_turns(turn: Turn) -> None:
    for _ in range(BLOCK):
        turn()


def print_table(title: str, costs: dict[str, list[float]]) -> None:
    """The median of the blocks, and of the differences of blocks that followed each other."""
    without = costs.pop("off")
    ((name, with_it),) = costs.items()
    pairs = list(zip(without[WARM_UP:], with_it[WARM_UP:], strict=True))
    differences = sorted(after - before for before, after in pairs)
    middle = statistics.median(differences)
    print(f"{title}: {statistics.median(before for before, _ in pairs):.2f} ms CPU")
    quarter = len(differences) // 4
    spread = f"{differences[quarter]:+.3f} to {differences[-quarter - 1]:+.3f}"
    print(f"with {name}: {middle:+.3f} ms (half of the blocks: {spread})", flush=True)


if __name__ == "__main__":
    main()
