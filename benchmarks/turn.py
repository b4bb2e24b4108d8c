"""Measures a turn as JSON, and a worker's memory after many, for ``benchmarks.targets``.

One worker, a user with 200 embedded messages, and fakes of the model and of the embedding service.
A turn's own time excludes the fakes' time, from the arrival of a request to the end of its answer.
"""

import time
from functools import partial

from benchmarks.processes import resident_mb
from benchmarks.sides import Checkout, Figures, Side, clock_ms, databases, in_turns, serving
from fake_openai import Answer, FakeOpenAI

MESSAGES = 200
TURNS_PER_BLOCK = 10
BACKGROUND_S = 0.05  # the answer's embedding is requested and stored after the turn
WORDS = (
    "bread dog train choir roof garden rain school letter money river bell".split()  # noqa: SIM905
)
MESSAGE = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', %(content)s, now() FROM standalone_chats WHERE id = %(chat)s
"""
USERNAME = "turns"


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The lines of a turn."""
    with databases(both) as sides, FakeOpenAI() as fake:
        fake.chat.default = Answer("I see.")
        service = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark"}
        tokens = {side.name: remember(side, MESSAGES, service) for side in sides}
        with serving(sides, LLM_BASE_URL=fake.base_url, **service):
            work = partial(turns, fake=fake, tokens=tokens)
            costs = in_turns(sides, work, blocks=5 if quick else 20)
            memory = {side.name: max(map(resident_mb, side.worker_pids())) for side in sides}
    kinds = {"worker CPU ms": "worker", "its own time, p50 ms": "p50", "backend CPU ms": "backend"}
    lines = {
        f"a turn, {title}": {name: cost[kind] for name, cost in costs.items()}
        for title, kind in kinds.items()
    }
    return lines | {"a worker's memory, MB": memory}


def remember(side: Side, count: int, service: dict[str, str]) -> str:
    """Create a user with ``count`` embedded messages. Returns a token."""
    token, chat = side.sign_up(USERNAME), side.create_chat(USERNAME)
    for number in range(count):
        word, other = WORDS[number % len(WORDS)], WORDS[number // len(WORDS) % len(WORDS)]
        content = f"Number {number}: the {word} and the {other} were what I thought of that day."
        side.database.execute(MESSAGE, {"chat": chat, "content": content})
    side.manage("backfill_embeddings", "--sleep", "0", **service)
    side.database.execute("VACUUM ANALYZE")
    return token


def turns(side: Side, block: int, *, fake: FakeOpenAI, tokens: dict[str, str]) -> list[float]:
    """Own milliseconds of each turn of a block."""
    client = side.client(tokens[side.name])
    own = []
    for number in range(TURNS_PER_BLOCK):
        chat = side.create_chat(USERNAME)
        word = WORDS[number % len(WORDS)]
        body = {"content": f"What did I say about the {word}, number {block}.{number}?"}
        before, started = len(fake.requests), clock_ms()
        client.post(f"/api/chats/{chat}/messages/", json=body).raise_for_status()
        took = clock_ms() - started
        requests = fake.requests[before : before + 2]
        own.append(took - sum(request.seconds or 0 for request in requests) * 1000)
        time.sleep(BACKGROUND_S)
    return own
