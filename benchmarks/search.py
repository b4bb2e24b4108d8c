"""Compares memory search over HTTP with the recall inside it.

    .venv/bin/python -m benchmarks.search [--rows 20000] [--questions 100] [--json FILE]

A real server with one worker answers GET /api/memory/search/ for users with 700 and 2,000 messages:
by words (EMBEDDINGS=none), and by words and meaning, without the fake embedding service's own time.
In between, this process calls recall with the same questions on the same database. The difference
is HTTP, Django, the embedding client and the fetching of the messages.
"""

import argparse
import itertools
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
import psycopg
from django.contrib.auth.models import User
from django.db import connection
from numpy.typing import NDArray

from benchmarks import results
from benchmarks.generated_messages import DataGenerator, fill, sign_up, write
from benchmarks.processes import cpu_ms
from benchmarks.recall import backend
from benchmarks.stage import scratch_database, serving, workers_of
from benchmarks.ways import WARM, as_row
from chat.auth.api_tokens import create_token
from fake_openai import FakeOpenAI
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from tests.support import Server

SIZES = (700, 2_000)
BACKENDS = """SELECT pid FROM pg_stat_activity
    WHERE datname = current_database() AND backend_type = 'client backend'
    AND pid <> pg_backend_pid() AND NOT pid = ANY (%s)"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    outcome = run(options.rows, options.questions)
    times = "p50 ms | p95 ms | CPU ms"
    print(f"| messages | by | HTTP {times} | the recall itself {times} |")
    print("|---|---|---|---|---|---|---|---|")
    for name, figures in outcome["figures"].items():
        size, _, by = name.partition(", ")
        print(as_row({"size": size, "by": by, **figures}))
    results.finish(outcome, options.json)


def run(rows: int, questions: int) -> dict[str, Any]:
    """The figures by size and way, and what HTTP adds to recall, in milliseconds."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url, FakeOpenAI() as fake:
        generator = DataGenerator()
        messages = write(Path(folder), rows, generator, sizes=SIZES)
        with psycopg.connect(url) as database:
            sign_up(database, messages)
            fill(database, messages, range(rows))
        tokens = {
            user: create_token(User.objects.get(pk=user))[1] for user in range(1, len(SIZES) + 1)
        }
        both = {
            "OPENAI_BASE_URL": fake.base_url,
            "OPENAI_API_KEY": "sk-benchmark",
            "EMBEDDING_MODEL": "model",
        }
        for by, values in {"words": {"EMBEDDINGS": "none"}, "words and meaning": both}.items():
            with serving(url, fake.base_url, WEB_CONCURRENCY="1", **values) as server:
                for user, size in enumerate(SIZES, start=1):
                    searcher = Searcher(server, fake, url, tokens[user], user)
                    vectors = generator.vectors(questions + WARM) if by != "words" else None
                    texts = generator.texts(questions + WARM, min_words=8, max_words=8)
                    figures[f"{size}, {by}"] = searcher.measure(texts, vectors)
    return {"rows": rows, "questions": questions, "figures": figures, "ratios": ratios_of(figures)}


def ratios_of(figures: dict[str, dict[str, float]]) -> dict[str, float]:
    """What HTTP adds to recall."""
    ratios = {}
    for name, row in figures.items():
        ratios[f"{name}: HTTP over recall, p50 ms"] = round(
            row["http_p50_ms"] - row["recall_p50_ms"], 2
        )
        ratios[f"{name}: HTTP over recall, CPU ms"] = round(
            row["http_cpu_ms"] - row["recall_cpu_ms"], 2
        )
        ratios[f"{name}: HTTP / recall, CPU"] = round(row["http_cpu_ms"] / row["recall_cpu_ms"], 2)
    return ratios


class Searcher:
    """Sends a user's questions over HTTP and to recall itself."""

    def __init__(self, server: Server, fake: FakeOpenAI, url: str, token: str, user: int) -> None:
        self._server, self._fake, self._url, self._user = server, fake, url, user
        self._client = server.client(token)
        self._pids: list[int] = []

    def measure(self, texts: list[str], vectors: NDArray[np.float32] | None) -> dict[str, float]:
        """The figures of all questions but the first WARM."""
        pairs = zip(texts, itertools.repeat(None) if vectors is None else vectors, strict=False)
        return summary([self.ask(text, vector) for text, vector in pairs][WARM:])

    def ask(self, text: str, vector: NDArray[np.float32] | None) -> tuple[float, ...]:
        """Wall and processor time in ms: over HTTP without the fake's own time, then of recall."""
        http = self._by_http(text)
        cpu, started = cpu_ms(backend()) + time.thread_time() * 1000, time.perf_counter()
        recall(text, Scope(self._user), embedding=vector, model="model")
        took = (time.perf_counter() - started) * 1000
        return (*http, took, cpu_ms(backend()) + time.thread_time() * 1000 - cpu)

    def _by_http(self, text: str) -> tuple[float, float]:
        before = len(self._fake.requests)
        cpu, started = self._cpu_ms(), time.perf_counter()
        self._client.get("/api/memory/search/", params={"q": text}).raise_for_status()
        took, cpu = time.perf_counter() - started, self._cpu_ms() - cpu
        self._pids = self._pids or self._backends()
        fakes_s = sum(request.seconds or 0 for request in self._fake.requests[before:])
        return (took - fakes_s) * 1000, cpu

    def _cpu_ms(self) -> float:
        """The CPU time of the worker and of the database."""
        return cpu_ms(workers_of(self._server)) + cpu_ms(self._pids)

    def _backends(self) -> list[int]:
        """The database processes of the worker's pool, which exist since the first request."""
        with psycopg.connect(self._url) as database:
            return [row[0] for row in database.execute(BACKENDS, [backend()]).fetchall()]


def summary(times: list[tuple[float, ...]]) -> dict[str, float]:
    """Quantiles of the wall times, means of the processor times."""
    http, http_cpu, itself, own_cpu = np.array(times).T
    figures: dict[str, float] = {}
    for name, wall, cpu in (("http", http, http_cpu), ("recall", itself, own_cpu)):
        p50, p95 = np.quantile(wall, [0.5, 0.95])
        figures |= {
            f"{name}_p50_ms": p50,
            f"{name}_p95_ms": p95,
            f"{name}_cpu_ms": np.mean(cpu),
        }
    return {name: round(float(value), 2) for name, value in figures.items()}


if __name__ == "__main__":
    connection.close()
    main()
