"""Measures a hundred users who each receive a stream of 50 tokens, for ``benchmarks.targets``.

Two workers, without memory. The bare endpoint is an ASGI application on the same server that only
streams. The fake model, in its own process, sends its first token at once and then 25 a second.
Times to the first token start when the request is sent. Client, model, servers and PostgreSQL share
this machine's processors.
"""

import asyncio
from functools import partial

from benchmarks.sides import Checkout, Figures, Side, clock_ms, databases, in_turns, serving
from benchmarks.stage import model

USERS = [f"user{number}" for number in range(100)]
SPREAD_S = 1.0
STARTS = {"spread over 1 s": SPREAD_S, "all at once": 0.0}  # seconds from the first to the last
BODY = b'{"content": "Hello"}'

Listener = tuple[str, int]  # token and chat


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The lines of streams."""
    lines: Figures = {}
    with (
        model("--tokens", "50", "--tokens-per-second", "25") as url,
        databases(both) as sides,
    ):
        listeners = {
            side.name: [(side.sign_up(user), side.create_chat(user)) for user in USERS]
            for side in sides
        }
        with serving(sides, LLM_BASE_URL=url, WEB_CONCURRENCY="2"):
            for title, spread_s in STARTS.items():
                work = partial(receive_all, listeners=listeners, spread_s=spread_s)
                costs = in_turns(sides, work, blocks=2 if quick else 8)
                lines[f"100 streams {title}, first token p95 ms"] = {
                    name: cost["p95"] for name, cost in costs.items()
                }
                if spread_s:
                    lines["a stream of 50 tokens, worker CPU ms"] = {
                        name: cost["worker"] for name, cost in costs.items()
                    }
        with serving(sides[-1:], APPLICATION="benchmarks.bare:application", WEB_CONCURRENCY="2"):
            work = partial(receive_all, listeners=listeners, spread_s=SPREAD_S)
            bare = in_turns(sides[-1:], work, blocks=2)
    lines["the same from a bare endpoint, worker CPU ms"] = {"now": bare["now"]["worker"]}
    return lines


def receive_all(
    side: Side, _block: int, *, listeners: dict[str, list[Listener]], spread_s: float
) -> list[float]:
    """Milliseconds to the first token of a stream of each user."""
    return asyncio.run(_receive_all(side, listeners[side.name], spread_s))


async def _receive_all(side: Side, listeners: list[Listener], spread_s: float) -> list[float]:
    assert side.server
    port = side.server.port

    async def receive_later(number: int) -> float:
        await asyncio.sleep(number * spread_s / len(listeners))
        return await receive(port, *listeners[number])

    return list(await asyncio.gather(*map(receive_later, range(len(listeners)))))


async def receive(port: int, token: str, chat: int) -> float:
    """Milliseconds to the first token of a whole stream. Raises if it does not end well."""
    address = f"/api/chats/{chat}/messages/"
    headers = f"Authorization: Token {token}\r\nAccept: text/event-stream\r\n"
    return await first_token_ms(
        port, request_of(address, headers, BODY), first=b"event: delta", end=b"event: done"
    )


def request_of(address: str, headers: str, body: bytes) -> bytes:
    """The bytes of a POST of JSON; each header ends its line."""
    head = (
        f"POST {address} HTTP/1.1\r\nHost: 127.0.0.1\r\nConnection: close\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def first_token_ms(port: int, request: bytes, *, first: bytes, end: bytes) -> float:
    """Milliseconds to ``first`` of a whole stream. Raises if it has no ``end``.

    Uses bare sockets: an HTTP library would use as much processor time as a worker.
    """
    started_ms = clock_ms()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(request)
        await reader.readuntil(first)
        first_ms = clock_ms() - started_ms
        rest = await reader.read(-1)
    finally:
        writer.close()
    if end not in rest:
        raise RuntimeError(f"the stream ended with {rest[-200:]!r}")
    return first_ms
