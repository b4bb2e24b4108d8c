"""Metrics of a process that is no web server, and of those that it forks."""

import subprocess
import sys
from pathlib import Path

import httpx2
import pytest
from django.db import connection

from fake_openai import FakeOpenAI
from tests.databases import USERS, Database
from tests.embed_queue_support import queue_of
from tests.support import (
    PATIENCE_S,
    ROOT,
    clean_environment,
    database_url,
    free_port,
    wait_for,
)
from verse.tests.metrics_support import BEARER, TOKEN, Samples, parse

pytestmark = [
    pytest.mark.django_db(transaction=True), pytest.mark.newest_schema, pytest.mark.soak
]  # fmt: skip
OLD_MESSAGE = """
    INSERT INTO standalone_chat_messages (user_id, chat_id, role, content, status, created_at)
    SELECT user_id, id, 'user', 'I keep a lizard', 'complete', now() - interval '1 day'
    FROM standalone_chats LIMIT 1
"""
WORKER = """
import os, signal, sys
import django
django.setup()
from retrieval.telemetry import metrics, serve_metrics
assert "prometheus_client" not in sys.modules
print(serve_metrics(), flush=True)
if not os.fork():
    metrics.embedding_request_sent()
    os._exit(0)
os.wait()
metrics.embedding_request_sent()
print("ready", flush=True)
sys.stdin.read()
"""


def scrape(port: int) -> Samples:
    headers = {"Authorization": BEARER}
    with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
        return parse(client.get("/metrics", headers=headers, timeout=PATIENCE_S).text)


def start(**environment: str) -> subprocess.Popen[str]:
    values = clean_environment(
        DJANGO_SETTINGS_MODULE="verse.settings",
        DATABASE_URL=database_url(connection),
        SECRET_KEY="test",
        **environment,
    )
    return subprocess.Popen(
        [sys.executable, "-c", WORKER], cwd=ROOT, env=values, text=True,
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip


def lines(worker: subprocess.Popen[str]) -> list[str]:
    assert worker.stdout
    return [worker.stdout.readline().strip() for _ in range(2)]


def test_a_worker_serves_what_it_and_its_children_count(tmp_path: Path) -> None:
    port = free_port()
    worker = start(METRICS_TOKEN=TOKEN, METRICS_PORT=str(port), TMPDIR=str(tmp_path))
    try:
        assert lines(worker) == [str(port), "ready"]
        with httpx2.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert client.get("/metrics").status_code == 401
            assert client.get("/").status_code == 404
        samples = scrape(port)
        assert samples["verse_embedding_calls_total"] == 2
        assert samples["verse_pending_rows"] == 0
    finally:
        worker.communicate("", timeout=PATIENCE_S)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("environment", [{"METRICS_TOKEN": TOKEN}, {"METRICS_PORT": "9100"}])
def test_without_port_or_token_a_worker_serves_nothing(environment: dict[str, str]) -> None:
    worker = start(**environment)
    assert lines(worker) == ["None", "ready"]
    worker.communicate("", timeout=PATIENCE_S)


def test_embed_worker_counts_its_calls_and_what_is_pending(
    database: Database, openai_server: FakeOpenAI
) -> None:
    openai_server.reset()
    port = free_port()
    with queue_of("procrastinate", database, openai_server) as queue:
        database.run(USERS)
        database.run(OLD_MESSAGE)
        queue.start_worker(METRICS_TOKEN=TOKEN, METRICS_PORT=str(port))
        wait_for(lambda: scrape(port)["verse_embedding_tokens_total"] > 0)
        samples = scrape(port)
        assert samples["verse_embedding_calls_total"] == len(openai_server.embeddings.requests)
        wait_for(lambda: scrape(port)["verse_pending_rows"] == 0)
