"""Memory search over HTTP, beside the recall inside it.

    .venv/bin/python -m benchmarks.search [--rows 20000] [--questions 100] [--json FILE]

One worker of the real server; GET /api/memory/search/ for a user with 700 messages and one with 2,000, by words
(EMBEDDINGS=none) and by both, where the fake embedding service's own time is subtracted. The same questions, in turn,
to the recall itself in this process, on the same database: the difference is HTTP, Django, the embedding's client and
the messages fetched.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import httpx2
import numpy as np
import psycopg
from django.contrib.auth.models import User
from django.db import connection
from numpy.typing import NDArray

from benchmarks import results
from benchmarks.load import scratch_database, serving
from benchmarks.people import World, fill, sign_up, write
from benchmarks.ways import WARM, as_row
from chat.tokens import create_token
from fake_openai import FakeOpenAI
from retrieval.recall import Scope, recall

SIZES = (700, 2_000)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--questions", type=int, default=100)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    found = run(options.rows, options.questions)
    print("| messages | by | HTTP p50 ms | p95 ms | the recall itself p50 ms | p95 ms | HTTP over recall, p50 ms |")
    print("|---|---|---|---|---|---|---|")
    for name, figures in found["figures"].items():
        size, _, by = name.partition(", ")
        print(as_row({"size": size, "by": by, **figures}))
    results.finish(found, options.json)


def run(rows: int, questions: int) -> dict[str, Any]:
    """Figures by size and way to look, and what is added to the recall, in milliseconds."""
    figures: dict[str, dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder, scratch_database() as url, FakeOpenAI() as fake:
        world = World()
        people = write(Path(folder), rows, world, sizes=SIZES)
        with psycopg.connect(url) as database:
            sign_up(database, people)
            fill(database, people, range(rows))
        tokens = {user: create_token(User.objects.get(pk=user))[1] for user in range(1, len(SIZES) + 1)}
        both = {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-benchmark", "EMBEDDING_MODEL": "model"}
        for by, values in {"words": {"EMBEDDINGS": "none"}, "words and meaning": both}.items():
            with serving(url, fake.base_url, WEB_CONCURRENCY="1", **values) as server:
                for user, size in enumerate(SIZES, start=1):
                    vectors = world.vectors(questions + WARM) if by != "words" else None
                    texts = world.texts(questions + WARM, least=8, most=8)
                    times = ask(server.client(tokens[user]), fake, user, texts, vectors)
                    figures[f"{size}, {by}"] = summary(times)
    ratios = {f"{name}: HTTP over recall, p50 ms": row["over"] for name, row in figures.items()}
    return {"rows": rows, "questions": questions, "figures": figures, "ratios": ratios}


def ask(
    client: httpx2.Client, fake: FakeOpenAI, user: int, texts: list[str], vectors: NDArray[np.float32] | None
) -> list[tuple[float, float]]:
    """Milliseconds of each question over HTTP, less the fake's, and of the recall itself."""
    times = []
    for number, text in enumerate(texts):
        before, began = len(fake.requests), time.perf_counter()
        client.get("/api/memory/search/", params={"q": text}).raise_for_status()
        took = time.perf_counter() - began - sum(one.seconds or 0 for one in fake.requests[before:])
        vector = None if vectors is None else vectors[number]
        began = time.perf_counter()
        recall(text, Scope(user), embedding=vector, model="model")
        times.append((took * 1000, (time.perf_counter() - began) * 1000))
    return times[WARM:]


def summary(times: list[tuple[float, float]]) -> dict[str, float]:
    """Quantiles of both, and the difference of the medians."""
    found = np.quantile(np.array(times), [0.5, 0.95], axis=0)
    http, itself = found[:, 0], found[:, 1]
    names = ("http_p50_ms", "http_p95_ms", "recall_p50_ms", "recall_p95_ms", "over")
    values = (*http, *itself, http[0] - itself[0])
    return {name: round(float(value), 2) for name, value in zip(names, values, strict=True)}


if __name__ == "__main__":
    connection.close()
    main()
