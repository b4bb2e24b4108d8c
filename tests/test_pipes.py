"""Commands in a pipe: they write each line at once, and end quietly when the reader closes it."""

import json
import os
import shlex
import signal
import subprocess
import sys

import pytest
from django.contrib.auth.models import User
from django.db import connection

from fake_openai import FakeOpenAI, Vectors
from retrieval.tests.backfill_support import (
    Done,
    add_messages,
    embedded_texts,
    only_line,
    query,
    start,
    texts,
    wait_for_end,
)
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
BUFFERED = {"PYTHONUNBUFFERED": ""}  # Python's default; the tests' environment is unbuffered


def run_piped(reader: str, command: str, **environment: str) -> Done:
    """``manage.py command | reader``: the reader's output, the command's exit code."""
    pipeline = (
        f"{shlex.quote(sys.executable)} manage.py {command} | {reader}; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", pipeline],
        cwd=ROOT,
        text=True,
        timeout=PATIENCE_S,
        env=settings_of(environment),
        capture_output=True,
    )
    return Done(done.returncode, done.stdout, done.stderr)


def run_unread(command: str, **environment: str) -> Done:
    """``manage.py command`` with a pipe that is already closed for reading."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()],
        cwd=ROOT,
        text=True,
        timeout=PATIENCE_S,
        env=settings_of(environment),
        stdout=write_end,
        stderr=subprocess.PIPE,
    )
    os.close(write_end)
    return Done(done.returncode, "", done.stderr)


def settings_of(more: dict[str, str]) -> dict[str, str]:
    """An environment with the tests' database and ``more``."""
    return clean_environment(
        **{"DATABASE_URL": database_url(connection), "SECRET_KEY": "test"} | more
    )


def service_of(fake: FakeOpenAI) -> dict[str, str]:
    """Settings of a command that calls the embedding service."""
    return {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-test-0123456789"}


def requested_texts(fake: FakeOpenAI) -> set[str]:
    """The texts in all embedding requests."""
    return {text for request in fake.embeddings.requests for text in request.texts}


@pytest.mark.parametrize("environment", [BUFFERED, {}], ids=["buffered", "unbuffered"])
def test_watching_ends_quietly_when_the_pipe_closes(environment: dict[str, str], db: None) -> None:
    done = run_piped("head -3", "rag_status --watch 0.1", **environment)
    assert (done.code, done.err) == (0, "")
    assert done.lines[1] == "Model: none yet"


@pytest.mark.parametrize(
    ("command", "environment"),
    [("rag_status", BUFFERED), ("rag_cost_estimate --json", {})],
    ids=["lines", "json"],
)
def test_a_report_into_a_closed_pipe_is_exit_1_without_output(
    command: str, environment: dict[str, str], db: None
) -> None:
    done = run_unread(command, **environment)
    assert (done.code, done.err) == (1, "")


def test_a_backfill_into_a_closed_pipe_stores_running_calls_and_stops(
    alice: User, remembering: FakeOpenAI
) -> None:
    add_messages(alice, texts(60))
    remembering.embeddings.default = Vectors(delay_s=0.3)
    command = "backfill_embeddings --batch-size 5 --workers 3 --sleep 0"
    done = run_piped("head -1", command, **BUFFERED, **service_of(remembering))
    assert done.code == 1
    assert (
        only_line(done.err)
        == "stopped: the reader of the output has ended; run backfill_embeddings again to go on"
    )
    assert done.lines == ["standalone_chat_messages: batch 1, 5 embedded, 0 failed, 5/60 (8.3%)"]
    assert embedded_texts() == requested_texts(remembering)
    assert 10 <= len(embedded_texts()) <= 40


@pytest.mark.soak
def test_json_output_is_complete_for_a_reader_of_one_line(
    alice: User, remembering: FakeOpenAI
) -> None:
    contents = texts(10)
    add_messages(alice, contents)
    command = "backfill_embeddings --batch-size 5 --sleep 0 --json"
    done = run_piped("head -1", command, **BUFFERED, **service_of(remembering))
    assert (done.code, json.loads(done.out)["embedded"]) == (0, 10)
    query("UPDATE standalone_chat_messages SET embedding = NULL")
    done = run_unread(command, **service_of(remembering))
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert embedded_texts() == set(contents)


def test_each_batch_is_reported_at_once_in_a_pipe(alice: User, remembering: FakeOpenAI) -> None:
    add_messages(alice, texts(10))
    process = start(remembering.base_url, "--batch-size", "5", "--sleep", "60", PYTHONUNBUFFERED="")
    assert process.stdout
    assert process.stdout.readline().startswith("standalone_chat_messages: batch 1, 5 embedded")
    process.send_signal(signal.SIGTERM)
    assert wait_for_end(process).code == 143


def test_an_export_ends_when_the_pipe_closes(alice: User) -> None:
    add_messages(alice, [f"{number} " + "x" * 30_000 for number in range(20)])
    done = run_piped("head -1", "export_messages", **BUFFERED)
    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out)["user"] == "alice"
