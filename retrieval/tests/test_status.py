"""rag_status: the state of memory as a table and as JSON, once or until Ctrl-C."""

import json
import os
import pty
import signal
import subprocess
import sys
import time
import tomllib
from io import StringIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command, execute_from_command_line
from django.db import connection
from pytest_django import Settings

from chat.models import ChatMessage, MemorySwitch, Passage, StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from retrieval import db
from retrieval.backfill import backfill
from retrieval.backfill.pending import for_table
from retrieval.status import COUNT_BY_ROW, count_messages, count_statement, percent
from tests.support import PATIENCE_S, ROOT, clean_environment, database_url

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
HNSW = ("idx_chat_messages_embedding_user", "idx_standalone_messages_embedding")
NOTHING = {"with": 0, "without": 0, "failed": 0, "percent": 100.0}


def status() -> dict[str, Any]:
    """What ``rag_status --json`` prints."""
    report: dict[str, Any] = json.loads(printed("--json"))
    return report


def printed(*options: str) -> str:
    """The command's output."""
    out = StringIO()
    call_command("rag_status", *options, stdout=out)
    return out.getvalue()


def say(user: User, *contents: str) -> StandaloneChat:
    """Messages in a chat."""
    chat = StandaloneChat.objects.create(user=user)
    for content in contents:
        StandaloneChatMessage.objects.create(
            user=user, conversation=chat, role="user", content=content
        )
    return chat


def run(sql: str) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql)


def test_an_empty_database_is_at_100_percent(db: None) -> None:
    report = status()
    assert report["tables"] == {"chat_messages": NOTHING, "standalone_chat_messages": NOTHING}
    assert report["model"] is None
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert report["version"] == pyproject["project"]["version"]
    assert f"Version: {report['version']}\n" in printed()
    assert {index["name"] for index in report["indexes"] if index["valid"]} >= set(HNSW)


def test_sizes_of_tables_and_their_indexes_are_those_of_postgresql(alice: User) -> None:
    say(alice, "One")
    sizes = status()["sizes"]
    assert set(sizes) == {"chat_messages", "standalone_chat_messages", "message_memories"}
    for name, size in sizes.items():
        with connection.cursor() as cursor:
            cursor.execute("SELECT pg_table_size(%s), pg_indexes_size(%s)", [name, name])
            assert (size["table_bytes"], size["index_bytes"]) == cursor.fetchone()
    assert "indexes, MB\nstandalone_chat_messages " in printed()


def test_each_message_is_with_or_without_or_failed(alice: User, remembering: FakeOpenAI) -> None:
    say(alice, "One", "Two", "Three")
    passage = Passage.objects.create(user=alice, reference="Tobit 6", text="And the dog followed.")
    ChatMessage.objects.create(user=alice, conversation=passage, role="user", content="Four")
    backfill(batch_size=10)
    say(alice, "Five", "Six", "Seven")
    run(
        "UPDATE message_memories SET embedding_error = 'refused'"
        " WHERE id = (SELECT max(id) FROM message_memories)"
    )
    report = status()
    standalone = {"with": 3, "without": 2, "failed": 1, "percent": 50.0}
    assert report["tables"]["standalone_chat_messages"] == standalone
    assert report["tables"]["chat_messages"] == {
        "with": 1,
        "without": 0,
        "failed": 0,
        "percent": 100.0,
    }
    assert (report["model"], report["configured_model"]) == ("text-embedding-3-small",) * 2


def test_the_fast_counts_equal_those_row_by_row(
    alice: User, bob: User, remembering: FakeOpenAI
) -> None:
    """Every second message has a vector, of the current or of another model, or is set aside."""
    off = say(alice, *(f"Off {number}" for number in range(12)))
    say(bob, *(f"Bob's {number}" for number in range(12)))
    on = say(alice, *(f"On {number}" for number in range(24)))
    backfill(batch_size=20)
    StandaloneChat.objects.filter(pk=off.pk).update(memory=False)
    MemorySwitch.objects.create(user=bob, enabled=False)
    run(
        "INSERT INTO embedding_models (name) VALUES ('another');"
        "UPDATE standalone_chat_messages SET embedding = NULL WHERE id % 4 = 1;"
        "UPDATE message_memories SET model = (SELECT max(id) FROM embedding_models)"
        " WHERE (id >> 1) % 4 = 3;"
        "UPDATE message_memories SET embedding_error = 'refused' WHERE (id >> 1) % 8 IN (1, 3)"
    )
    table = StandaloneChatMessage.memory_table
    ((*fast, every_vector_has_model),) = db.execute(count_statement(table), {})
    ((*by_row,),) = db.execute(for_table(COUNT_BY_ROW, table), {})
    assert (fast, every_vector_has_model) == (by_row, True)
    assert by_row[0] == 24
    assert 0 < by_row[2] < by_row[1] < by_row[0]
    # Then the fast counts are wrong: a failed answer has a vector.
    on.messages.filter(content__startswith="On").update(status="failed")
    counts = count_messages(table)
    assert (counts["with"], counts["without"], counts["failed"]) == (0, 0, 0)


def test_messages_switched_off_failed_or_empty_are_not_counted(alice: User, bob: User) -> None:
    StandaloneChat.objects.filter(pk=say(alice, "Off").pk).update(memory=False)
    say(bob, "Off as well")
    MemorySwitch.objects.create(user=bob, enabled=False)
    chat = say(alice, "On")
    StandaloneChatMessage.objects.create(
        user=alice, conversation=chat, role="assistant", content="", status="failed"
    )
    assert status()["tables"]["standalone_chat_messages"] == {
        "with": 0,
        "without": 1,
        "failed": 0,
        "percent": 0.0,
    }


def test_a_message_from_before_the_triggers_is_without(alice: User) -> None:
    say(alice, "Old")
    run("DELETE FROM message_memories")
    assert status()["tables"]["standalone_chat_messages"]["without"] == 1


def test_vectors_of_another_model_are_without(
    alice: User, remembering: FakeOpenAI, settings: Settings
) -> None:
    say(alice, "One")
    backfill(batch_size=10)
    run(
        "UPDATE embedding_models SET current = false;"
        " INSERT INTO embedding_models (name, current) VALUES ('x', true)"
    )
    assert status()["tables"]["standalone_chat_messages"]["without"] == 1
    assert (
        "Model: x; EMBEDDING_MODEL is text-embedding-3-small: run manage.py rag_model\n"
        in printed()
    )


def test_indexes_have_size_validity_and_times_used(alice: User, remembering: FakeOpenAI) -> None:
    say(alice, "One")
    backfill(batch_size=10)
    run(
        "UPDATE pg_index SET indisvalid = false"
        " WHERE indexrelid = 'idx_chat_messages_embedding_user'::regclass"
    )
    try:
        indexes = {index["name"]: index for index in status()["indexes"]}
        assert set(indexes["idx_standalone_messages_embedding"]) == {
            "name", "table", "size_bytes", "valid", "scans", "missing",
        }  # fmt: skip
        assert indexes["idx_standalone_messages_embedding"]["table"] == "standalone_chat_messages"
        assert indexes["idx_standalone_messages_embedding"]["size_bytes"] > 0
        assert [indexes[name]["valid"] for name in HNSW] == [False, True]
        assert indexes["message_memories_pending"]["scans"] >= 0
        assert "  INVALID: manage.py rag_index rebuild, or migrate" in printed()
    finally:
        run(
            "UPDATE pg_index SET indisvalid = true"
            " WHERE indexrelid = 'idx_chat_messages_embedding_user'::regclass"
        )


def test_without_json_it_prints_a_table(alice: User, settings: Settings) -> None:
    settings.RAG_MIN_SIMILARITY = 0.25
    say(alice, "One")
    lines = printed().splitlines()
    assert lines[:2] == ["Model: none yet", "RAG_MIN_SIMILARITY: 0.25"]
    row = next(line for line in lines if line.startswith("standalone_chat_messages"))
    assert row.split() == ["standalone_chat_messages", "0", "1", "0", "0.00%"]
    settings.RAG_MIN_SIMILARITY = -1
    assert printed().splitlines()[1] == "RAG_MIN_SIMILARITY: -1.00 (nothing is left out)"
    settings.RAG_MIN_SIMILARITY, settings.EMBEDDINGS = None, "local"
    assert status()["min_similarity"] == -1.0  # of the bundled model: nothing is left out


@pytest.mark.parametrize(
    ("part", "whole", "expected"),
    [(0, 0, 100.0), (1, 3, 33.33), (999_999, 1_000_000, 99.99), (5, 5, 100.0)],
)
def test_it_is_100_percent_only_if_nothing_is_missing(
    part: int, whole: int, expected: float
) -> None:
    assert percent(part, whole) == expected


def watching(*options: str, **streams: Any) -> "subprocess.Popen[bytes]":
    """``rag_status --watch`` in a process of its own, which hears SIGINT."""
    code = "import signal, sys; signal.signal(signal.SIGINT, signal.default_int_handler); "
    code += "sys.argv[0] = 'manage.py'; "
    code += "from django.core.management import execute_from_command_line as run; run(sys.argv)"
    values = {"DATABASE_URL": database_url(connection), "SECRET_KEY": "test", "TERM": "xterm"}
    return subprocess.Popen(
        [sys.executable, "-c", code, "rag_status", "--watch", *options], cwd=ROOT, **streams,
        env=clean_environment(DJANGO_SETTINGS_MODULE="verse.settings", **values),
    )  # fmt: skip


def test_watch_runs_until_ctrl_c_and_exits_0(alice: User) -> None:
    process = watching("0.2", "--json", stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout
    seen = [json.loads(process.stdout.readline())]
    say(alice, "One")
    until = time.monotonic() + PATIENCE_S
    while (
        seen[-1]["tables"]["standalone_chat_messages"]["without"] == 0 and time.monotonic() < until
    ):
        seen.append(json.loads(process.stdout.readline()))
    assert seen[-1]["tables"]["standalone_chat_messages"]["without"] == 1
    process.send_signal(signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE_S)
    assert (process.returncode, err) == (0, b"")


def test_watch_clears_the_screen_of_a_terminal(db: None) -> None:
    ours, theirs = pty.openpty()
    process = watching("0.2", stdout=theirs, stderr=theirs)
    os.close(theirs)
    shown = b""
    while shown.count(b"\x1b[2J\x1b[H") < 2:
        shown += os.read(ours, 65536)
    process.send_signal(signal.SIGINT)
    process.wait(PATIENCE_S)
    os.close(ours)
    assert b"chat_messages" in shown


@pytest.mark.parametrize("seconds", ["0", "-1", "often", "inf", "nan"])
def test_wrong_usage_is_exit_2(seconds: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        execute_from_command_line(["manage.py", "rag_status", f"--watch={seconds}"])
    assert ended.value.code == 2
    assert "is not seconds, 0.1 or more" in capsys.readouterr().err
