"""Measures requests without a turn, one after the other, for ``benchmarks.targets``.

One connection, one worker, a user with 200 embedded messages, and a fake of the embedding service.
The processor time is what every request costs: HTTP, Django, DRF, the token, the statements, JSON.
"""

from collections.abc import Callable
from functools import partial

import httpx2

from benchmarks import turn
from benchmarks.sides import Checkout, Figures, Side, clock_ms, databases, in_turns, serving
from fake_openai import FakeOpenAI

REQUESTS_PER_BLOCK = 25
Request = Callable[[httpx2.Client, int], httpx2.Response]
REQUESTS: dict[str, Request] = {
    "healthz": lambda client, _: client.get("/healthz"),
    "an empty list": lambda client, _: client.get("/api/passages/"),
    "a list of 50 messages": lambda client, _: client.get("/api/chats/1/messages/"),
    "memory search": lambda client, number: client.get(
        "/api/memory/search/", params={"q": question(number)}
    ),
    "make a chat": lambda client, _: client.post("/api/chats/", json={"title": "A chat"}),
}


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """A line for each request. A search asks for an embedding."""
    with databases(both) as sides, FakeOpenAI() as fake:
        service = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark"}
        tokens = {side.name: turn.remember(side, turn.MESSAGES, service) for side in sides}
        with serving(sides, **service):
            return {
                f"{name}, worker CPU ms": worker_ms(sides, request, tokens, 4 if quick else 12)
                for name, request in REQUESTS.items()
            }


def worker_ms(
    sides: list[Side], request: Request, tokens: dict[str, str], blocks: int
) -> dict[str, float]:
    """The worker's processor time of one kind of request, by side's name."""
    work = partial(send, request=request, tokens=tokens)
    costs = in_turns(sides, work, blocks=blocks)
    return {name: cost["worker"] for name, cost in costs.items()}


def send(side: Side, block: int, *, request: Request, tokens: dict[str, str]) -> list[float]:
    """Milliseconds of each request of a block. Raises if one fails."""
    client, times = side.client(tokens[side.name]), []
    for number in range(REQUESTS_PER_BLOCK):
        started_ms = clock_ms()
        request(client, block * REQUESTS_PER_BLOCK + number).raise_for_status()
        times.append(clock_ms() - started_ms)
    return times


def question(number: int) -> str:
    """A different question for each number."""
    return f"What did I say about the {turn.WORDS[number % len(turn.WORDS)]}, number {number}?"
