"""Measures what a turn at /v1 costs more than one of our own API: processor time, by its history.

    .venv/bin/python -m benchmarks.openai_api [--turns 40]

Uses a scratch database on the configured server, a worker with EMBEDDINGS=none, and a fake model.
The chat holds the same history for both. Blocks of turns of both kinds take turns.
"""

import argparse
import os
import statistics
from collections.abc import Callable
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
from django.contrib.auth.models import User
from django.db import connection

from benchmarks.processes import BACKENDS, cpu_ms
from benchmarks.stage import scratch_database, workers_of
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from retrieval.queries import rows
from tests.support import Server

HISTORIES = (0, 40, 2_000)  # messages
BLOCK = 5  # turns
SENTENCE = "The bread was on the table of the school, and the dog of the choir slept under it. "
NO_LIMITS = {"THROTTLE_MESSAGES": "off", "STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "1"}
Turn = Callable[[], object]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--turns", type=int, default=40)
    turns = parser.parse_args().turns
    with scratch_database() as database, FakeOpenAI() as fake:
        fake.chat.default = Answer("I see.")
        user = User.objects.create(username="alice")
        model = {"DATABASE_URL": database, "LLM_BASE_URL": fake.base_url, "EMBEDDINGS": "none"}
        server = Server(model | NO_LIMITS)
        try:
            compare(server, user, turns)
        finally:
            server.end()


def compare(server: Server, user: User, turns: int) -> None:
    """A row for each length of the history."""
    key = create_token(user)[1]
    api, v1 = server.client(key), server.client(Authorization=f"Bearer {key}")
    print("| messages of history | | worker ms CPU | backend ms CPU |\n|---|---|---|---|")
    for size in HISTORIES:
        kinds = {
            "own API": lambda size=size: own_turn(api, new_chat(user, size)),
            "/v1": lambda size=size: openai_turn(v1, size, new_chat(user, size)),
        }
        costs = in_turns(server, kinds, turns)
        for name, (worker, backend) in costs.items():
            print(f"| {size} | {name} | {worker:.1f} | {backend:.1f} |", flush=True)


def in_turns(
    server: Server, kinds: dict[str, Callable[[], Turn]], turns: int
) -> dict[str, tuple[float, float]]:
    """The median block's worker and backend milliseconds a turn."""
    costs: dict[str, list[tuple[float, float]]] = {name: [] for name in kinds}
    for block in range(turns // BLOCK + 1):
        for name, prepare in kinds.items():
            prepared = [prepare() for _ in range(BLOCK)]
            before = spent(server)
            for turn in prepared:
                turn()
            after = spent(server)
            if block:  # the first warms up
                costs[name].append(((after[0] - before[0]) / BLOCK, (after[1] - before[1]) / BLOCK))
    return {
        name: (statistics.median(w for w, _ in cost), statistics.median(b for _, b in cost))
        for name, cost in costs.items()
    }


def spent(server: Server) -> tuple[float, float]:
    """Milliseconds of the worker, and of the database's processes."""
    return cpu_ms(workers_of(server)), cpu_ms(pid for (pid,) in rows(BACKENDS))


def text(number: int) -> str:
    return f"Number {number}: {SENTENCE * (1 + number % 3)}"


def new_chat(user: User, size: int) -> StandaloneChat:
    """A chat with so many messages; each chat has its own texts."""
    chat = StandaloneChat.objects.create(user=user)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(user=user, conversation=chat, **message(chat, number))
        for number in range(size)
    )
    connection.commit()
    return chat


def message(chat: StandaloneChat, number: int) -> dict[str, str]:
    return {
        "role": "assistant" if number % 2 else "user",
        "content": f"{chat.pk}.{text(number)}",
    }


def own_turn(client: httpx2.Client, chat: StandaloneChat) -> Turn:
    address = f"/api/chats/{chat.pk}/messages/"
    return lambda: client.post(address, json={"content": "And now?"}).raise_for_status()


def openai_turn(client: httpx2.Client, size: int, chat: StandaloneChat) -> Turn:
    """The whole history, without an id: the chat is found by it."""
    messages: list[Any] = [message(chat, number) for number in range(size)]
    body = {"model": "verse", "messages": [*messages, {"role": "user", "content": "And now?"}]}

    def turn() -> None:
        response = client.post("/v1/chat/completions", json=body)
        response.raise_for_status()
        if size and response.headers["X-Verse-Chat"] != str(chat.pk):
            raise RuntimeError("the chat was not found by its messages")

    return turn


if __name__ == "__main__":
    main()
