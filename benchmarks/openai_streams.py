"""Measures a hundred streams at once by /v1 and by our own API: the time to their first tokens.

    .venv/bin/python -m benchmarks.openai_streams [--blocks 6]

Two workers without memory, a hundred users whose requests are spread over a second, and a fake
model in its own process that sends 50 tokens, 25 a second. Each block has chats of its own with ten
messages; the clients of /v1 send them, and no id. Blocks of both take turns; the first is left out.
"""

import argparse
import asyncio
import json
import os
import statistics
from collections.abc import Callable
from typing import NamedTuple

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.contrib.auth.models import User

from benchmarks.openai_api import message, new_chat
from benchmarks.processes import cpu_ms
from benchmarks.stage import model, scratch_database, serving, workers_of
from benchmarks.streams import BODY, SPREAD_S, first_token_ms, request_of
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from tests.support import Server

USERS = 100
HISTORY = 10  # messages
FIRST_TOKEN = {"own API": b"event: delta", "/v1": b'"content":"You'}
END = {"own API": b"event: done", "/v1": b"[DONE]"}
Request = Callable[[str, StandaloneChat], bytes]


class Cost(NamedTuple):
    """Of a block: to the first tokens, and the workers' processor time of a stream."""

    p50_ms: float
    p95_ms: float
    worker_ms: float


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--blocks", type=int, default=6)
    blocks = parser.parse_args().blocks
    with (
        model("--tokens", "50", "--tokens-per-second", "25") as url,
        scratch_database() as database,
        serving(database, url) as server,
    ):
        users = [User.objects.create(username=f"user{number}") for number in range(USERS)]
        report(measure(server, {user: create_token(user)[1] for user in users}, blocks))


def measure(server: Server, keys: dict[User, str], blocks: int) -> dict[str, list[Cost]]:
    """The costs of each block but the first, which warms up."""
    costs: dict[str, list[Cost]] = {name: [] for name in REQUESTS}
    for block in range(blocks + 1):
        for name, request in REQUESTS.items():
            requests = [request(key, new_chat(user, HISTORY)) for user, key in keys.items()]
            before_ms = cpu_ms(workers_of(server))
            times = asyncio.run(receive_all(server.port, name, requests))
            spent_ms = (cpu_ms(workers_of(server)) - before_ms) / USERS
            p95 = statistics.quantiles(times, n=20)[-1]
            if block:
                costs[name].append(Cost(statistics.median(times), p95, spent_ms))
    return costs


def own_request(key: str, chat: StandaloneChat) -> bytes:
    """The question alone: Verse adds the history."""
    headers = f"Authorization: Token {key}\r\nAccept: text/event-stream\r\n"
    return request_of(f"/api/chats/{chat.pk}/messages/", headers, BODY)


def openai_request(key: str, chat: StandaloneChat) -> bytes:
    """The whole history, by which the chat is found."""
    messages = [message(chat, number) for number in range(HISTORY)]
    messages.append({"role": "user"} | json.loads(BODY))
    body = json.dumps({"model": "verse", "stream": True, "messages": messages}).encode()
    return request_of("/v1/chat/completions", f"Authorization: Bearer {key}\r\n", body)


REQUESTS: dict[str, Request] = {"own API": own_request, "/v1": openai_request}


async def receive_all(port: int, name: str, requests: list[bytes]) -> list[float]:
    """Milliseconds to the first token of each stream."""

    async def receive_later(number: int, request: bytes) -> float:
        await asyncio.sleep(number * SPREAD_S / USERS)
        return await first_token_ms(port, request, first=FIRST_TOKEN[name], end=END[name])

    return list(await asyncio.gather(*(receive_later(*item) for item in enumerate(requests))))


def report(costs: dict[str, list[Cost]]) -> None:
    """Print the medians of the blocks, and the ratios of the two 95th percentiles."""
    print("| 100 streams | p50 ms | p95 ms | worker CPU ms a stream |\n|---|---|---|---|")
    for name, blocks in costs.items():
        medians = [statistics.median(column) for column in zip(*blocks, strict=True)]
        print(f"| {name} | {' | '.join(f'{median:.1f}' for median in medians)} |")
    pairs = zip(costs["/v1"], costs["own API"], strict=True)
    ratios = sorted(v1.p95_ms / own.p95_ms for v1, own in pairs)
    median, smallest, largest = statistics.median(ratios), ratios[0], ratios[-1]
    print(f"\np95 of /v1 over the own API's: {median:.2f} ({smallest:.2f} to {largest:.2f})")


if __name__ == "__main__":
    main()
