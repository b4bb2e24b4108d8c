"""The audit log: each act has its line without contents, and no role changes or deletes one."""

import getpass
import json
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from io import StringIO
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import DatabaseError, connection, transaction
from pytest_django import Settings
from rest_framework.test import APIClient

from chat.models import StandaloneChat
from fake_openai import FakeOpenAI
from retrieval import audit
from retrieval.models import EmbeddingModel
from tests.support import database_url, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
Api = Callable[[User], APIClient]
NAMELESS_UID = 10_001
CHANGES = {
    "UPDATE": "UPDATE audit_log SET who = 'nobody'",
    "DELETE": "DELETE FROM audit_log",
    "TRUNCATE": "TRUNCATE audit_log",
}


def acts() -> list[tuple[str, str, str]]:
    """Who, what, whose of each line."""
    return [(line.who, line.what, line.whose) for line in audit.lines()]


def run(*arguments: str, **options: Any) -> str:
    out = StringIO()
    call_command(*arguments, stdout=out, **options)
    return out.getvalue()


@pytest.mark.parametrize("change", CHANGES)
def test_even_the_owner_cannot_change_a_line(change: str) -> None:
    audit.record("alice", "export")
    with (
        pytest.raises(DatabaseError, match=f"keeps every line: {change}"),
        transaction.atomic(),
        connection.cursor() as cursor,
    ):
        cursor.execute(CHANGES[change])
    assert acts() == [("alice", "export", "")]


def test_each_act_of_a_user_has_its_line(alice: User, api: Api) -> None:
    client = api(alice)
    password = {"username": "alice", "password": "alice's password", "name": "laptop"}
    token = client.post("/api/auth/token/", password, format="json").json()["id"]
    client.delete(f"/api/auth/tokens/{token}/")
    client.patch("/api/memory/", {"enabled": False}, format="json")
    chat = StandaloneChat.objects.create(user=alice, title="a canary")
    client.patch(f"/api/chats/{chat.pk}/", {"memory": False}, format="json")
    client.patch(f"/api/chats/{chat.pk}/", {"memory": False, "title": "again"}, format="json")
    chat.messages.create(user=alice, role="user", content="a canary")
    client.get("/api/memory/export/")
    client.delete("/api/memory/", {"confirm": "alice"}, format="json")
    assert acts() == [
        ("alice", what, "alice")
        for what in (
            *("token made", "token revoked", "memory off", f"memory of chat {chat.pk} off"),
            *("export", "erase"),
        )
    ]
    alice.delete()
    assert len(acts()) == 6


COMMANDS = {
    "rag_rollout dark": ("rag_rollout dark", ""),
    "rag_model use --yes": ("rag_model use", ""),
    "rag_text use english": ("rag_text use", ""),
    "rag_index rebuild": ("rag_index rebuild", ""),
    "backfill_embeddings": ("backfill_embeddings", ""),
    "import_messages {file}": ("import_messages", ""),
    "import_messages --format claude --user alice {export}": ("import_messages", "alice"),
    "export_messages": ("export_messages", ""),
    "export_messages --user alice": ("export_messages", "alice"),
    "expire_conversations": ("expire_conversations", ""),
    "create_token alice --name canary": ("create_token", "alice"),
    "erase_data alice": ("erase", "alice"),
}
LINE = {"user": "alice", "conversation": "canary", "role": "user", "content": "canary"}
EXPORT = [{"uuid": "canary", "name": "canary", "chat_messages": []}]


@pytest.mark.parametrize("command", COMMANDS)
def test_each_command_that_changes_or_gives_out_something_has_its_line(
    command: str, alice: User, remembering: FakeOpenAI, settings: Settings, tmp_path: Path
) -> None:
    settings.RETENTION_DAYS = 1
    EmbeddingModel.objects.create(name="text-embedding-ada-002", current="use" in command)
    chat = StandaloneChat.objects.create(user=alice, title="canary")
    chat.messages.create(user=alice, role="user", content="canary")
    file, export = tmp_path / "lines.jsonl", tmp_path / "conversations.json"
    file.write_text(json.dumps(LINE | {"created_at": "2026-01-01T00:00:00Z"}))
    export.write_text(json.dumps(EXPORT))
    run(*command.format(file=file, export=export).split())
    (line,) = acts()
    assert line == (f"command:{getpass.getuser()}", *COMMANDS[command])


def test_an_account_without_a_name_has_its_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """As the account of the image."""
    for name in ("LOGNAME", "USER", "LNAME", "USERNAME"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(os, "getuid", lambda: NAMELESS_UID)
    audit.record_command("backfill")
    assert acts() == [(f"command:{NAMELESS_UID}", "backfill", "")]


@pytest.mark.parametrize(
    "command",
    ["rag_status", "rag_rollout", "rag_text", "rag_cost_estimate", "backfill_embeddings --dry-run"],
)
def test_a_command_that_only_looks_has_no_line(command: str, remembering: FakeOpenAI) -> None:
    run(*command.split())
    assert acts() == []


def test_the_command_prints_and_purges(settings: Settings) -> None:
    audit.record("alice", "export", whose="bob")
    (line,) = json.loads(run("audit", "--json"))
    assert line.keys() == {"when", "who", "what", "whose"}
    assert run("audit").rstrip().endswith("alice  export  bob")
    assert run("audit", "--purge") == "0 lines deleted\n"
    let_them_be_old()
    assert run("audit", "--purge") == "1 lines deleted\n"
    assert acts() == []


def let_them_be_old() -> None:
    """All lines, although a trigger keeps them as they are."""
    with connection.cursor() as cursor:
        cursor.execute("SET session_replication_role = replica")
        cursor.execute("UPDATE audit_log SET at = at - interval '400 days'")
        cursor.execute("SET session_replication_role = origin")


def test_a_purge_takes_many_lines_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(5):
        audit.record("alice", "export")
    let_them_be_old()
    audit.record("alice", "erase")
    monkeypatch.setattr(audit, "MAX_BATCH", 2)
    assert run("audit", "--purge") == "5 lines deleted\n"
    assert acts() == [("alice", "erase", "")]


def test_a_purge_tries_again_while_an_act_is_written(capfd: pytest.CaptureFixture[str]) -> None:
    audit.record("alice", "export")
    let_them_be_old()
    with psycopg.connect(database_url(connection)) as other, ThreadPoolExecutor() as pool:
        other.execute("INSERT INTO audit_log (who, what, whose) VALUES ('bob', 'export', '')")
        purge = pool.submit(purge_in_thread)
        wait_for(lambda: purge.done() or "audit_log is in use" in capfd.readouterr().err)
        other.commit()
        assert purge.result() == 1
    assert acts() == [("bob", "export", "")]


def purge_in_thread() -> int:
    try:
        return audit.purge(days=365)
    finally:
        connection.close()
