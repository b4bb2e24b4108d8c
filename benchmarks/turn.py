"""Measures a turn's time without the model and the embedding service, and a worker's memory.

    .venv/bin/python -m benchmarks.turn [--messages 200] [--turns 100]

Uses one worker, a user with ``--messages`` embedded messages, and fakes of the model and of the
embedding service. Each turn's time is also given without the fakes: the time from the arrival of a
request to the end of its answer is subtracted.
"""

import argparse
import os
import statistics
import time

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from django.conf import settings
from django.contrib.auth.models import User

from benchmarks.load import scratch_database, serving, workers_mb
from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat
from fake_openai import Answer, FakeOpenAI
from retrieval.backfill import backfill

WORDS = (
    "bread dog train choir roof garden rain school letter money river bell".split()  # noqa: SIM905
)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--messages", type=int, default=200)
    parser.add_argument("--turns", type=int, default=100)
    options = parser.parse_args()
    with scratch_database() as url, FakeOpenAI() as fake:
        fake.chat.default = Answer("I see.")
        settings.OPENAI_BASE_URL, settings.OPENAI_API_KEY = fake.base_url, "sk-benchmark"
        token = remember(options.messages)
        values = {
            "OPENAI_BASE_URL": fake.base_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "WEB_CONCURRENCY": "1",
        }
        with serving(url, fake.base_url, **values) as server:
            started_mb = workers_mb(server)
            client = server.client(token)
            whole, own = [], []
            for number in range(options.turns + 10):
                chat = client.post("/api/chats/", json={}).json()["id"]
                before = len(fake.requests)
                started = time.perf_counter()
                word = WORDS[number % len(WORDS)]
                body = {"content": f"What did I say about the {word}, number {number}?"}
                client.post(f"/api/chats/{chat}/messages/", json=body).raise_for_status()
                took = time.perf_counter() - started
                requests = fake.requests[before : before + 2]
                others = sum(request.seconds or 0 for request in requests)
                time.sleep(0.05)  # the answer's embedding is requested after the turn
                if number >= 10:
                    whole.append(took)
                    own.append(took - others)
            times = "p50 ms | p95 ms | its own p50 ms | its own p95 ms"
            print(f"| messages | turns | {times} | worker MB, started | used |")
            print("|---|---|---|---|---|---|---|---|")
            cells = [
                f"{cut * 1000:.1f}"
                for durations in (whole, own)
                for cut in middle_and_high(durations)
            ]
            memory = f"{started_mb:.0f} | {workers_mb(server):.0f}"
            print(f"| {options.messages} | {options.turns} | {' | '.join(cells)} | {memory} |")


def remember(count: int) -> str:
    """Create a user with ``count`` embedded messages. Returns a token."""
    user = User.objects.create(username="turns")
    chat = StandaloneChat.objects.create(user=user)
    for number in range(count):
        word, other = WORDS[number % len(WORDS)], WORDS[number // len(WORDS) % len(WORDS)]
        content = f"Number {number}: the {word} and the {other} were what I thought of that day."
        chat.messages.create(user=user, role="user", content=content)
    backfill(batch_size=100)
    return create_token(user)[1]


def middle_and_high(times: list[float]) -> tuple[float, float]:
    """The 50th and the 95th percentile."""
    cuts = statistics.quantiles(times, n=20)
    return cuts[9], cuts[18]


if __name__ == "__main__":
    main()
