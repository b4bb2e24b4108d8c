"""Commands whose output another program reads: each line at once, and only as far as that one cares."""

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
    PATIENCE_S,
    Done,
    begin,
    embedded,
    end_of,
    one_line,
    query,
    say,
    texts,
)
from tests.support import ROOT, clean_environment, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
BUFFERED = {"PYTHONUNBUFFERED": ""}  # Python's own habit; the tests' environment has it otherwise


def into(reader: str, command: str, **environment: str) -> Done:
    """``manage.py command | reader``: what comes through, and the command's code."""
    pipeline = (
        f"{shlex.quote(sys.executable)} manage.py {command} | {reader}; exit ${{PIPESTATUS[0]}}"
    )
    done = subprocess.run(
        ["bash", "-c", pipeline], cwd=ROOT, text=True, timeout=PATIENCE_S, env=settings_of(environment),
        capture_output=True,
    )  # fmt: skip
    return Done(done.returncode, done.stdout, done.stderr)


def unread(command: str, **environment: str) -> Done:
    """``manage.py command`` whose reader is gone before the first word."""
    read_end, write_end = os.pipe()
    os.close(read_end)
    done = subprocess.run(
        [sys.executable, "manage.py", *command.split()], cwd=ROOT, text=True, timeout=PATIENCE_S,
        env=settings_of(environment), stdout=write_end, stderr=subprocess.PIPE,
    )  # fmt: skip
    os.close(write_end)
    return Done(done.returncode, "", done.stderr)


def settings_of(more: dict[str, str]) -> dict[str, str]:
    """The tests' database, and ``more``."""
    return clean_environment(
        **{"DATABASE_URL": database_url(connection), "SECRET_KEY": "test"} | more
    )


def service_of(fake: FakeOpenAI) -> dict[str, str]:
    """Settings of a command that embeds."""
    return {"OPENAI_BASE_URL": fake.base_url, "OPENAI_API_KEY": "sk-test-0123456789"}


def asked(fake: FakeOpenAI) -> set[str]:
    """The texts that were bought."""
    return {text for request in fake.embeddings.requests for text in request.texts}


@pytest.mark.parametrize("environment", [BUFFERED, {}], ids=["buffered", "unbuffered"])
def test_watching_ends_without_a_word_when_the_reader_has_seen_enough(
    environment: dict[str, str], db: None
) -> None:
    done = into("head -3", "rag_status --watch 0.1", **environment)
    assert (done.code, done.err) == (0, "")
    assert done.lines[1] == "Model: none yet"


@pytest.mark.parametrize(
    ("command", "environment"),
    [("rag_status", BUFFERED), ("rag_cost_estimate --json", {})],
    ids=["lines", "json"],
)
def test_a_report_that_nobody_reads_is_exit_1_without_a_word(
    command: str, environment: dict[str, str], db: None
) -> None:
    done = unread(command, **environment)
    assert (done.code, done.err) == (1, "")


def test_a_backfill_that_nobody_reads_keeps_what_is_under_way_and_says_how_to_go_on(
    alice: User, remembering: FakeOpenAI
) -> None:
    say(alice, texts(60))
    remembering.embeddings.default = Vectors(delay_s=0.3)
    command = "backfill_embeddings --batch-size 5 --workers 3 --sleep 0"
    done = into("head -1", command, **BUFFERED, **service_of(remembering))
    assert done.code == 1
    assert (
        one_line(done.err)
        == "stopped: the reader of the output has ended; run backfill_embeddings again to go on"
    )
    assert done.lines == ["standalone_chat_messages: batch 1, 5 embedded, 0 failed, 5/60 (8.3%)"]
    assert embedded() == asked(remembering)
    assert 10 <= len(embedded()) <= 40


def test_one_object_is_whole_for_a_reader_of_one_line(alice: User, remembering: FakeOpenAI) -> None:
    said = texts(10)
    say(alice, said)
    command = "backfill_embeddings --batch-size 5 --sleep 0 --json"
    done = into("head -1", command, **BUFFERED, **service_of(remembering))
    assert (done.code, json.loads(done.out)["embedded"]) == (0, 10)
    query("UPDATE standalone_chat_messages SET embedding = NULL")
    done = unread(command, **service_of(remembering))
    assert (done.code, "Traceback" in done.err) == (1, False)
    assert embedded() == set(said)


def test_each_batch_is_told_at_once_into_a_pipe_too(alice: User, remembering: FakeOpenAI) -> None:
    say(alice, texts(10))
    process = begin(remembering.base_url, "--batch-size", "5", "--sleep", "60", PYTHONUNBUFFERED="")
    assert process.stdout
    assert process.stdout.readline().startswith("standalone_chat_messages: batch 1, 5 embedded")
    process.send_signal(signal.SIGTERM)
    assert end_of(process).code == 143


def test_an_export_ends_when_the_reader_has_seen_enough(alice: User) -> None:
    say(alice, [f"{number} " + "x" * 30_000 for number in range(20)])
    done = into("head -1", "export_messages", **BUFFERED)
    assert (done.code, done.err) == (1, "")
    assert json.loads(done.out)["user"] == "alice"
