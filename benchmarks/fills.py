"""Measures how much faster a backfill is than single UPDATEs, for ``benchmarks.targets``.

Both embed the same number of messages, from reading them to the last commit. They take turns in the
database of each checkout, without HNSW indexes. The loop reads a hundred messages, asks the service
once for their vectors, and stores each as text by an UPDATE of its own. The backfill's time is that
of its command without the start of the process, measured by a run without pending messages.
"""

import statistics
import time
from collections.abc import Callable

from openai import OpenAI

from benchmarks.sides import Checkout, Figures, Side, databases
from benchmarks.stage import model

USERNAME = "fills"
BATCH_ROWS = 100  # as the command's default
EMBEDDING_MODEL = "text-embedding-3-small"
ADD = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT user_id, id, 'user', 'Number ' || n || ' said of bread and dogs ' || n * 7919 %% 1000
        || ' ' || md5(clock_timestamp()::text || n), now() - interval '1 day'
    FROM standalone_chats, generate_series(1, %s) n
"""
NEXT = """
    SELECT id, content FROM standalone_chat_messages WHERE embedding IS NULL ORDER BY id LIMIT %s
"""
STORE = "UPDATE standalone_chat_messages SET embedding = %s::vector WHERE id = %s"


def measure(both: list[Checkout], *, quick: bool) -> Figures:
    """The line of a backfill, and the rows a second of both ways."""
    rows, rounds = (1_000, 1) if quick else (5_000, 3)
    commands: dict[str, list[float]] = {checkout.name: [] for checkout in both}
    loops: dict[str, list[float]] = {checkout.name: [] for checkout in both}
    with model() as service, databases(both) as sides:
        for side in sides:
            prepare(side, service)
        for _ in range(rounds):
            for side in sides:
                commands[side.name].append(rate(side, rows, service, run_command))
                loops[side.name].append(rate(side, rows, service, update_each))
    times = {
        name: statistics.median(map(float.__truediv__, commands[name], loops[name]))
        for name in commands
    }
    return {
        "backfill, times as fast as single UPDATEs": times,
        "backfill, rows a second": {name: statistics.median(commands[name]) for name in commands},
        "single UPDATEs, rows a second": {name: statistics.median(loops[name]) for name in loops},
    }


def prepare(side: Side, service: str) -> None:
    """A user with a chat, no HNSW index, and a current model: some messages are embedded."""
    side.sign_up(USERNAME)
    side.create_chat(USERNAME)
    side.database.execute("DROP INDEX idx_standalone_messages_embedding")
    rate(side, BATCH_ROWS, service, run_command)


def rate(side: Side, rows: int, service: str, embed: Callable[[Side, str], float]) -> float:
    """Rows a second. ``embed`` embeds all pending messages and returns the seconds."""
    side.database.execute(ADD, [rows])
    return rows / embed(side, service)


def run_command(side: Side, service: str) -> float:
    """The seconds of the command; those of a second run, which has nothing to do, are its start."""
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        side.manage(
            "backfill_embeddings", "--sleep", "0",
            OPENAI_BASE_URL=service, OPENAI_API_KEY="sk-benchmark",
        )  # fmt: skip
        seconds.append(time.perf_counter() - started)
    return seconds[0] - seconds[1]


def update_each(side: Side, service: str) -> float:
    """The seconds of the loop of single UPDATEs, each its own transaction."""
    client = OpenAI(base_url=service, api_key="sk-benchmark")
    started = time.perf_counter()
    while batch := side.database.execute(NEXT, [BATCH_ROWS]).fetchall():
        texts = [content for _, content in batch]
        answer = client.embeddings.create(model=EMBEDDING_MODEL, input=texts, dimensions=1536)
        for (pk, _), item in zip(batch, answer.data, strict=True):
            side.database.execute(STORE, [str(item.embedding), pk])
    return time.perf_counter() - started
