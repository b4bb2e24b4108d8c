"""Measures a backfill: writing vectors, a million pending rows, recall while it runs.

    .venv/bin/python -m benchmarks.backfill [--rows 1000000] [--only PART]

Uses a scratch database on the configured server, and the fake embedding service in a separate
process. Writing is compared with Django's bulk_update.
"""

import argparse
import contextlib
import os
import resource
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import islice
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

import numpy as np
from django.conf import settings
from django.db import connection

from benchmarks.stage import model, scratch_database
from chat.models import StandaloneChatMessage
from retrieval import current_model, storage
from retrieval.backfill import fill_words, pending
from retrieval.models import message_tables
from retrieval.recall.candidates import Scope
from retrieval.recall.messages import recall
from retrieval.schema import indexes
from tests.support import ROOT, clean_environment

MODEL = "text-embedding-3-small"
USERS = 100
FILL = """
    INSERT INTO auth_user (username, password, is_superuser, first_name, last_name, email,
        is_staff, is_active, date_joined)
    SELECT 'user' || n, '!', false, '', '', '', false, true, now()
    FROM generate_series(1, %(users)s) n;
    INSERT INTO standalone_chats (user_id) SELECT id FROM auth_user;
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, created_at)
    SELECT c.user_id, c.id, 'user', 'Number ' || n{more}, now() - n * interval '1 minute'
    FROM generate_series(1, %(rows)s) n
    JOIN standalone_chats c ON c.id = (SELECT min(id) FROM standalone_chats) + n %% %(users)s
    ORDER BY n;
"""
WORDS = " || ' said of bread and dogs ' || (n * 7919 %% 1000) || ' ' || md5(n::text)"
NARROW = """
    INSERT INTO message_memories (id, user_id, conversation, created_at, by_user, terms, chars,
        is_question, search_config_id)
    SELECT id * 2, user_id, chat_id * 2, created_at, true, ARRAY[id], 10, false,
        (SELECT id FROM search_configs WHERE current) FROM standalone_chat_messages
"""
EMBED = "UPDATE message_memories SET model = %(model)s WHERE {which}"
MOMENTS = {"start": 0.0, "middle": 0.5, "end": 0.999}
QUESTIONS = 200
ROUNDS = 4
SOURCE = message_tables()[0]


def main() -> None:
    """Print the requested tables."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", choices=["writing", "million", "beside"])
    options = parser.parse_args()
    for name, measure in (("writing", writing), ("million", million), ("beside", beside)):
        if options.only in (None, name):
            with scratch_database() as url:
                measure(options, url)


def writing(_options: argparse.Namespace, _url: str) -> None:
    """Rows a second of each way, without and with the HNSW index. Recall's triggers are on."""
    print("| rows a second | bulk_update | store_all | times as many |")
    print("|---|---|---|---|")
    query(FILL.replace("{more}", WORDS), {"rows": 20_000, "users": USERS})
    current_model.check_model(MODEL)
    rows = iter(StandaloneChatMessage.objects.order_by("pk"))
    indexes.drop(connection, "idx_standalone_messages_embedding")
    for size in (100, 500):
        report_rates(f"batches of {size}, no HNSW index", rows, size)
    index = StandaloneChatMessage._meta.indexes[-1]
    indexes.build(connection, StandaloneChatMessage._meta.db_table, index)  # type: ignore[arg-type]
    report_rates("batches of 100, HNSW index", rows, 100)


def report_rates(state: str, rows: Iterator[Any], size: int) -> None:
    """Print a line: the median of ROUNDS times 500 rows for each way, after a warm-up round."""
    theirs, ours = [], []
    for _ in range(1 + ROUNDS):
        theirs.append(rate(list(islice(rows, 500)), size, with_bulk_update))
        ours.append(rate(list(islice(rows, 500)), size, with_store_all))
    before, after = statistics.median(theirs[1:]), statistics.median(ours[1:])
    print(f"| {state} | {before:,.0f} | {after:,.0f} | {after / before:.1f} |", flush=True)


def rate(rows: list[Any], size: int, write: Callable[[list[Any], Any], None]) -> float:
    """Rows a second, without the time to generate the vectors."""
    vectors = np.random.default_rng(1).standard_normal((len(rows), 1536), dtype=np.float32)
    started = time.perf_counter()
    for at in range(0, len(rows), size):
        write(rows[at : at + size], vectors[at : at + size])
    return len(rows) / (time.perf_counter() - started)


def with_bulk_update(rows: list[Any], vectors: Any) -> None:
    """Write by Django's bulk_update."""
    for row, vector in zip(rows, vectors, strict=True):
        row.embedding = vector
    StandaloneChatMessage.objects.bulk_update(rows, ["embedding"])


def with_store_all(rows: list[Any], vectors: Any) -> None:
    """Write by the backfill's statement."""
    texts = [(row.pk, row.content, vector) for row, vector in zip(rows, vectors, strict=True)]
    assert storage.store_all(SOURCE, texts, model=MODEL) == len(rows)


def million(options: argparse.Namespace, url: str) -> None:
    """Measure the search for the next batch, and the command's memory."""
    with triggers_off():
        query(FILL.replace("{more}", ""), {"rows": options.rows, "users": USERS})
    query(NARROW)
    query("VACUUM (ANALYZE)")
    current_model.check_model(MODEL)
    words_s = seconds(lambda: sum(fill_words.Fill(SOURCE)))
    print(f"going through them for words: {words_s:.1f} s")
    print(f"counting them: {seconds(lambda: pending.count(SOURCE, model=MODEL)):.1f} s")
    print("| next batch of 100, ms: first / median / best | start | middle | end |")
    print("|---|---|---|---|")
    report_next("all pending", None)
    with model() as service:
        report_memory(url, service)
    report_next("all pending, after a part was embedded", None)
    query(EMBED.replace("{which}", "id %% 1000 <> 0"), {"model": 1})
    report_next("one in 500 pending, before any VACUUM", None)
    query("VACUUM (ANALYZE) message_memories", {})
    report_next("one in 500 pending", None)
    query("INSERT INTO embedding_models (name) VALUES ('another')", {})
    query(EMBED.replace("{which}", "true"), {"model": 2})
    report_next("all of another model", 2)


def report_next(state: str, model_id: int | None) -> None:
    """Print a line: the first, median and best of twenty times.

    On a busy machine the best is the most reliable.
    """
    ((last_id,),) = query("SELECT max(id) FROM standalone_chat_messages", {})
    cells = []
    for share in MOMENTS.values():
        find = partial(
            pending.next_rows, SOURCE, model=model_id, after=int(last_id * share), limit=100
        )
        times = [seconds(find) for _ in range(20)]
        shown = (times[0], statistics.median(times), min(times))
        cells.append(" / ".join(f"{time_s * 1000:.1f}" for time_s in shown))
    print(f"| {state} | {' | '.join(cells)} |", flush=True)


def report_memory(url: str, service: str) -> None:
    """Embed some of the rows with the command, and print its peak memory."""
    started = time.perf_counter()
    output = backfill(url, service, "--limit", "1000", "--sleep", "0")
    used_mb = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
    took_s = time.perf_counter() - started
    print(f"{output.splitlines()[-2]}; {took_s:.0f} s, at most {used_mb:.0f} MB\n")


def backfill(url: str, service: str, *arguments: str) -> str:
    """The command's output."""
    return end_of(start(url, service, *arguments))


def start(url: str, service: str, *arguments: str) -> "subprocess.Popen[str]":
    """Start the command in a separate process."""
    values = {
        "DATABASE_URL": url,
        "SECRET_KEY": "benchmark",
        "OPENAI_BASE_URL": service,
        "OPENAI_API_KEY": "sk-none",
    }
    command = [sys.executable, "manage.py", "backfill_embeddings", *arguments]
    return subprocess.Popen(
        command, cwd=ROOT, env=clean_environment(**values), stdout=subprocess.PIPE, text=True
    )


def end_of(process: "subprocess.Popen[str]") -> str:
    """The process's output."""
    return process.communicate()[0]


def beside(_options: argparse.Namespace, url: str) -> None:
    """Measure recall by words and meaning, alternately with and without a throttled backfill."""
    query(FILL.replace("{more}", WORDS), {"rows": 30_000, "users": USERS})
    settings.OPENAI_API_KEY, settings.OPENAI_BASE_URL = "sk-none", "http://127.0.0.1:9/v1"
    current_model.check_model(MODEL)
    rows = list(StandaloneChatMessage.objects.order_by("-pk")[:6_000])
    rate(rows, 100, with_store_all)
    query("VACUUM (ANALYZE)", {})
    times: dict[str, list[float]] = {"without": [], "with": []}
    with model() as service:
        for _ in range(3):
            times["without"] += searches()
            process = start(url, service, "--batch-size", "50", "--sleep", "1")
            assert process.stdout is not None
            next(line for line in process.stdout if "batch 1" in line)
            drain = threading.Thread(target=process.stdout.read)
            drain.start()
            times["with"] += searches()
            process.terminate()
            drain.join()
            process.wait()
    print("| recall, ms | p50 | p95 |")
    print("|---|---|---|")
    for state, taken in times.items():
        p50, p95 = (np.percentile(taken, share) * 1000 for share in (50, 95))
        print(f"| {state} a backfill of 50 rows a second | {p50:.1f} | {p95:.1f} |", flush=True)


def searches() -> list[float]:
    """The seconds of QUESTIONS recalls, at ten a second."""
    numbers = np.random.default_rng(1)
    taken = []
    for number in range(QUESTIONS):
        vector = numbers.standard_normal(1536, dtype=np.float32)
        taken.append(seconds(partial(ask, number, vector)))
        time.sleep(0.1)
    return taken


def ask(number: int, vector: Any) -> None:
    """Recall by words and meaning."""
    user = 1 + number % USERS
    recall(f"bread and dogs {number}", Scope(user), embedding=vector, model=MODEL)


def seconds(work: Callable[[], object]) -> float:
    """The duration of the work."""
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@contextlib.contextmanager
def triggers_off() -> Iterator[None]:
    """Disable recall's triggers, as for rows from before it was installed."""
    query("ALTER TABLE standalone_chat_messages DISABLE TRIGGER USER", {})
    yield
    query("ALTER TABLE standalone_chat_messages ENABLE TRIGGER USER", {})


def query(sql: str, params: dict[str, Any] | None = None) -> list[tuple[Any, ...]]:
    """Run a statement. Returns its rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else []


if __name__ == "__main__":
    main()
