"""import_messages --format: nothing twice, nothing half done, and bad files refused in one line."""

import io
import json
import zipfile
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from pytest_django import Settings

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.models.imports import ImportedItem, MemoryImport
from chat.tests.product_exports import (
    archive,
    as_json,
    chatgpt,
    claude,
    claude_message,
    node,
    talk,
    write,
)
from chat.transfer import archive as archives
from chat.transfer import json_array
from fake_openai import FakeOpenAI
from retrieval import audit

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]


def run(path: Path, content: bytes, *arguments: str, product: str = "chatgpt") -> str:
    out = io.StringIO()
    name = write(path / "export", content)
    call_command(
        "import_messages", "--format", product, "--user", "alice", *arguments, name, stdout=out
    )
    return out.getvalue()


def stored() -> list[tuple[str, str]]:
    """The conversation's source and the content of each message, in order."""
    messages = StandaloneChatMessage.objects.order_by("conversation__source", "created_at", "id")
    return list(messages.values_list("conversation__source", "content"))


def test_an_archive_becomes_conversations_of_the_user(alice: User, tmp_path: Path) -> None:
    packed = archive({"conversations.json": as_json(talk("1", "Hi", "Hello!", title="Talk"))})
    report = run(tmp_path, packed)
    number = MemoryImport.objects.get().pk
    assert report == (
        f"Imported 2 messages in 1 conversation of 1 user; this is import {number}\n"
        "They are found by words at once; backfill_embeddings embeds them.\n"
    )
    chat = StandaloneChat.objects.get()
    assert (chat.user, chat.title, chat.source, chat.memory) == (alice, "Talk", "chatgpt:1", True)
    assert [message.status for message in chat.messages.all()] == ["complete"] * 2
    (line,) = audit.lines()
    assert (line.what, line.whose) == ("import_messages", "alice")


def test_a_later_export_adds_only_what_is_new(alice: User, tmp_path: Path) -> None:
    run(tmp_path, as_json(talk("1", "a", "b", "c"), talk("2", "x"), talk("3", "y")))
    edited, deleted = StandaloneChatMessage.objects.filter(content__in="ab").order_by("content")
    StandaloneChatMessage.objects.filter(pk=edited.pk).update(content="edited")
    deleted.delete()
    StandaloneChat.objects.filter(source="chatgpt:1").update(title="Renamed")
    StandaloneChat.objects.get(source="chatgpt:2").delete()
    later = as_json(talk("1", "a", "b", "c", "d"), talk("2", "x", "z"), talk("3", "y"), talk("4"))
    report = json.loads(run(tmp_path, later, "--json"))
    assert (report["conversations"], report["messages"]) == (1, 1)
    assert report["left_out"] == {"already": 5, "deleted": 1}
    assert stored() == [
        ("chatgpt:1", "edited"),
        ("chatgpt:1", "c"),
        ("chatgpt:1", "d"),
        ("chatgpt:3", "y"),
    ]
    assert StandaloneChat.objects.get(source="chatgpt:1").title == "Renamed"


def test_users_and_products_have_items_of_their_own(alice: User, bob: User, tmp_path: Path) -> None:
    run(tmp_path, as_json(talk("1", "a")))
    run(tmp_path, as_json(talk("1", "a")), "--user", "bob")
    run(tmp_path, as_json(claude("1", claude_message("1-0", "a"))), product="claude")
    assert stored() == [("chatgpt:1", "a"), ("chatgpt:1", "a"), ("claude:1", "a")]
    items = ImportedItem._default_manager.filter(is_conversation=False)
    refs = {(user_id, ref // 2) for user_id, ref in items.values_list("user", "ref")}
    assert refs == set(StandaloneChatMessage.objects.values_list("user", "pk"))


def test_a_dry_run_says_how_many_and_the_cost_and_adds_nothing(
    alice: User, tmp_path: Path, remembering: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_PRICE_PER_1K = 1.0
    run(tmp_path, as_json(talk("1", "a")))
    content = as_json(talk("1", "a", "two words", "two words"), talk("2", "x"))
    before = (stored(), MemoryImport.objects.count())
    report = json.loads(run(tmp_path, content, "--json", "--dry-run"))
    tokens = report.pop("tokens")
    assert 2 <= tokens <= 4  # equal texts are bought once
    assert report == {
        "conversations": 2,
        "messages": 3,
        "left_out": {"already": 1},
        "cost_usd": tokens / 1000,
    }
    assert run(tmp_path, content, "--dry-run") == (
        f"3 messages in 2 conversations would be imported; embedding them costs"
        f" ${tokens / 1000:.4f} ({tokens} tokens)\n"
        "Left out: 1 were imported before\nNothing was imported.\n"
    )
    assert (stored(), MemoryImport.objects.count()) == before
    assert not remembering.requests


GOOD = as_json(talk("1", "a"), talk("2", "b" * 5_000))
PACKED = archive({"conversations.json": GOOD})


def bomb() -> bytes:
    return archive({"conversations.json": as_json(talk("1", "a" * 3_000_000))})


def encrypted() -> bytes:
    packed = bytearray(archive({"conversations.json": GOOD}, zipfile.ZIP_STORED))
    for magic, flags in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
        packed[packed.index(magic) + flags] |= 1
    return bytes(packed)


BAD = {
    "empty": (b"", "array"),
    "words": (b"no JSON", "array"),
    "object": (b'{"mapping": {}}', "array"),
    "lines": (b'{"user": "alice"}\n{"user": "alice"}\n', "array"),
    "numbers": (b"[1, 2]", "array"),
    "cut": (GOOD[:-300], "cut"),
    "cut between": (GOOD[: GOOD.index(b'{"title": "A talk"', 5)], "cut"),
    "no comma": (GOOD.replace(b"}, {", b"} {", 1), "no JSON"),
    "longer": (GOOD + b" []", "goes on after"),
    "latin-1": (GOOD.replace(b"bbb", b"\xe9\xe9\xe9"), "UTF-8"),
    "nested": (b'[{"mapping":' + b"[" * 200_000, "too deeply"),
    "other product": (as_json(claude("1", claude_message("1", "a"))), "no mapping"),
    "no id": (as_json(chatgpt("", node("1", None, "a"))), "id is missing"),
    "circle": (as_json(chatgpt("1", node("a", "b", "x"), node("b", "a", "y"))), "circle"),
    "cut archive": (PACKED[:-40], "damaged or cut"),
    "archive without its end": (PACKED[: len(PACKED) // 2], "damaged or cut"),
    "damaged archive": (PACKED[:60] + b"\x00\xff" * 4 + PACKED[68:], "damaged or cut"),
    "other archive": (archive({"readme.txt": b"Hello"}), "holds no conversations"),
    "bomb": (bomb(), "250 to 1"),
    "encrypted": (encrypted(), "encrypted"),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_and_nothing_is_kept(name: str, alice: User, tmp_path: Path) -> None:
    content, reason = BAD[name]
    with pytest.raises(CommandError, match=f"{reason}.*; nothing was imported$") as refused:
        run(tmp_path, content)
    assert (refused.value.returncode, "\n" in str(refused.value)) == (1, False)
    assert not StandaloneChat.objects.exists()
    assert not MemoryImport.objects.exists()


def test_an_archive_of_too_many_members_is_refused_unread(
    alice: User, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "MAX_DIRECTORY_BYTES", 70_000)  # zipfile looks for the end first
    packed = archive({f"file-{number}.png": b"" for number in range(1_500)})
    with pytest.raises(CommandError, match="too many members"):
        run(tmp_path, packed)


@pytest.mark.parametrize(
    ("limit", "value", "texts"),
    [("MAX_OBJECT_CHARS", 3_000, ["x" * 10_000]), ("MAX_OBJECT_PARTS", 50, ["x"] * 400)],
)
def test_a_conversation_over_the_limit_is_refused(
    limit: str,
    value: int,
    texts: list[str],
    alice: User,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(json_array, "CHUNK_CHARS", 1_000)
    monkeypatch.setattr(json_array, limit, value)
    with pytest.raises(CommandError, match="too large"):
        run(tmp_path, as_json(talk("1", *texts)))


def test_a_later_conversation_of_another_form_is_counted(alice: User, tmp_path: Path) -> None:
    content = as_json(talk("1", "a"), {"what": "else"}, talk("2", "b"))
    assert json.loads(run(tmp_path, content, "--json"))["left_out"] == {"unknown_conversation": 1}
    assert [text for _, text in stored()] == ["a", "b"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--format", "chatgpt"],
        ["--user", "alice"],
        ["--dry-run"],
        ["--format", "claude", "--user", "alice", "--skip-bad"],
        ["--format", "claude", "--user", "alice", "--create-users"],
    ],
)
def test_options_that_do_not_go_together_are_wrong_usage(arguments: list[str]) -> None:
    with pytest.raises(CommandError) as refused:
        call_command("import_messages", *arguments, "-")
    assert refused.value.returncode == 2


def test_an_unknown_user_is_refused(alice: User, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="no user is called 'carol'; nothing was imported"):
        run(tmp_path, GOOD, "--user", "carol")


@pytest.mark.soak
def test_the_oldest_schema_asks_for_migrate(alice: User, tmp_path: Path, database: Any) -> None:
    database.start_at("0013_doctor_run")
    name = write(tmp_path / "export", GOOD)
    done = database.process("import_messages", "--format", "chatgpt", "--user", "alice", name)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "run manage.py migrate" in done.stderr
