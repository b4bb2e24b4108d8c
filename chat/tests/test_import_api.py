"""Imports over the API: in the background, removable, each user's own."""

import time
from collections.abc import Callable, Iterator
from datetime import timedelta
from io import BytesIO
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.utils import timezone
from rest_framework.test import APIClient

from chat.models import StandaloneChat, StandaloneChatMessage
from chat.models.imports import MemoryImport
from chat.tests.product_exports import archive, as_json, claude, claude_message, talk
from chat.tests.support import Api
from chat.tests.transfer_support import AT, line
from chat.transfer import background
from retrieval import audit
from retrieval.schema.locks import IMPORT_LOCK
from tests.support import PATIENCE_S

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
IMPORTS = "/api/memory/import/"


def post(client: APIClient, content: bytes, format_name: str = "chatgpt", **more: Any) -> Any:
    return client.post(IMPORTS, {"file": BytesIO(content), "format": format_name} | more)


def wait(client: APIClient, import_id: int) -> dict[str, Any]:
    """The import once it has ended."""
    until = time.monotonic() + PATIENCE_S
    while time.monotonic() < until:
        state: dict[str, Any] = client.get(f"{IMPORTS}{import_id}/").json()
        if state["status"] != "running":
            return state
        time.sleep(0.02)
    raise AssertionError(f"it still runs: {state}")


def imported(client: APIClient, content: bytes, format_name: str = "chatgpt") -> dict[str, Any]:
    answer = post(client, content, format_name)
    assert (answer.status_code, list(answer.json())) == (202, ["id"]), answer.content
    return wait(client, answer.json()["id"])


@pytest.fixture
def busy(other: Any) -> Iterator[Callable[[], None]]:
    """An import of another process is running, until this is called."""
    other.execute("SELECT pg_advisory_lock(%s)", [IMPORT_LOCK])
    yield lambda: other.execute("SELECT pg_advisory_unlock_all()")
    other.execute("SELECT pg_advisory_unlock_all()")


@pytest.mark.parametrize("size", [1, 3_000_000])
def test_an_upload_is_imported_in_the_background(size: int, client: APIClient) -> None:
    """Small files are kept in memory, others on disk."""
    content = as_json(talk("1", "Hi", "x" * size), talk("2", "Hi"))
    state = imported(client, content)
    created_at = state.pop("created_at")
    assert created_at.endswith("Z")
    assert state == {
        "id": MemoryImport.objects.get().pk,
        "format": "chatgpt",
        "status": "done",
        "conversations": 2,
        "messages": 3,
        "left_out": {},
        "detail": "",
    }
    assert client.get(IMPORTS).json()["results"] == [state | {"created_at": created_at}]
    assert StandaloneChatMessage.objects.count() == 3
    assert [(each.who, each.what) for each in audit.lines()] == [("alice", "import of chatgpt")]


@pytest.mark.parametrize(
    ("content", "format_name", "detail"),
    [
        (b"[{", "chatgpt", "Nothing was imported: the file is no JSON, or it is cut."),
        (archive({"a": b""}), "claude", "Nothing was imported: the archive holds no conv"),
        (line(role="x"), "jsonl", "Nothing was imported: line 1: role must be user or"),
        (line(user="bob"), "jsonl", "Nothing was imported: line 1: user is another one"),
    ],
)
def test_a_bad_file_fails_with_the_reason(
    content: bytes, format_name: str, detail: str, client: APIClient, bob: User
) -> None:
    state = imported(client, content, format_name)
    assert state["status"] == "failed"
    assert state["detail"].startswith(detail)
    assert (state["conversations"], state["messages"]) == (0, 0)
    assert not StandaloneChat.objects.exists()


def test_a_conversation_that_an_archive_holds_twice_is_imported_once(client: APIClient) -> None:
    files = {
        "conversations.json": as_json(talk("1", "Hi", "Hello!", "Bye"), talk("2", "And you?")),
        "older/conversations.json": as_json(talk("1", "Hi", "Hello!")),
    }
    state = imported(client, archive(files))
    assert (state["status"], state["messages"], state["conversations"]) == ("done", 4, 2)
    assert state["left_out"] == {"already": 2}
    again = imported(client, archive(files))
    assert (again["messages"], again["left_out"]) == (0, {"already": 6})


def test_lines_may_leave_the_user_out(alice: User, client: APIClient) -> None:
    state = imported(client, line(user=...) + line(content="x", kind="passage"), "jsonl")
    assert (state["status"], state["messages"], state["conversations"]) == ("done", 2, 2)
    again = imported(client, line(user=...), "jsonl")
    assert (again["messages"], again["left_out"]) == (0, {"already": 1})


@pytest.mark.parametrize(
    "fields", [{"format": "zip"}, {"file": ""}, {"format": ""}, {"file": "text"}]
)
def test_a_wrong_form_is_refused(fields: dict[str, Any], client: APIClient) -> None:
    answer = post(client, b"[]", **fields)
    assert (answer.status_code, answer.json()["code"]) == (400, "invalid")
    assert client.post(IMPORTS, {}, format="json").status_code == 415
    assert not MemoryImport.objects.exists()


def test_one_import_at_a_time_for_each_user(
    client: APIClient, bob: User, api: Api, busy: Callable[[], None]
) -> None:
    first = post(client, as_json(talk("1", "a"))).json()["id"]
    second = post(client, as_json(talk("1", "a")))
    assert (second.status_code, second.json()["code"]) == (409, "in_progress")
    removal = client.delete(f"{IMPORTS}{first}/")
    assert (removal.status_code, removal.json()["code"]) == (409, "in_progress")
    his = post(api(bob), as_json(talk("1", "b"))).json()["id"]
    assert client.get(f"{IMPORTS}{first}/").json()["status"] == "running"
    busy()
    assert wait(client, first)["status"] == "done"
    assert wait(api(bob), his)["status"] == "done"


def test_a_removal_deletes_exactly_what_the_import_added(alice: User, client: APIClient) -> None:
    first = imported(client, as_json(talk("1", "a", "b"), talk("2", "x"), talk("3", "y")))
    own = StandaloneChat.objects.create(user=alice, title="Mine")
    own.messages.create(user=alice, role="user", content="a")
    second = imported(client, as_json(talk("1", "a", "b", "c"), talk("4", "z")))
    continued = StandaloneChat.objects.get(source="chatgpt:2")
    continued.messages.create(user=alice, role="user", content="said here")
    StandaloneChatMessage.objects.filter(content="b").update(content="edited")
    assert client.delete(f"{IMPORTS}{first['id']}/").status_code == 204
    left = StandaloneChatMessage.objects.order_by("content").values_list("content", flat=True)
    assert list(left) == ["a", "c", "said here", "z"]
    chats = StandaloneChat.objects.values_list("source", flat=True)
    assert set(chats) == {"chatgpt:1", "chatgpt:2", None, "chatgpt:4"}
    assert client.get(f"{IMPORTS}{first['id']}/").status_code == 404
    assert client.delete(f"{IMPORTS}{second['id']}/").status_code == 204
    assert set(StandaloneChat.objects.values_list("source", flat=True)) == {"chatgpt:2", None}
    again = imported(client, as_json(talk("1", "a", "b")))
    assert (again["messages"], again["left_out"]) == (2, {})
    acts = [each.what for each in audit.lines()]
    assert acts.count(f"import {first['id']} removed") == 1


def test_a_removal_of_lines_keeps_what_was_there_before(alice: User, client: APIClient) -> None:
    chat = StandaloneChat.objects.create(user=alice, source="c", title="c")
    chat.messages.create(user=alice, role="user", content="Hello", created_at=AT)
    state = imported(client, line() + line(content="x") + line(kind="passage"), "jsonl")
    assert state["messages"] == 2
    assert client.delete(f"{IMPORTS}{state['id']}/").status_code == 204
    assert list(chat.messages.values_list("content", flat=True)) == ["Hello"]
    with connection.cursor() as cursor:
        cursor.execute("SELECT count(*) FROM passages")
        assert cursor.fetchone() == (0,)


def test_imports_of_others_look_like_missing_ones(client: APIClient, bob: User, api: Api) -> None:
    state = imported(client, as_json(talk("1", "a")))
    his = api(bob)
    for number in (state["id"], 2**62):
        for answer in (his.get(f"{IMPORTS}{number}/"), his.delete(f"{IMPORTS}{number}/")):
            assert (answer.status_code, answer.content) == (
                404,
                b'{"detail":"Not found.","code":"not_found"}',
            )
    assert his.get(IMPORTS).json()["results"] == []
    assert StandaloneChatMessage.objects.count() == 1


def test_an_import_without_a_heartbeat_has_failed(alice: User, client: APIClient) -> None:
    old = timezone.now() - timedelta(seconds=background.ABANDONED_S + 1)
    lost = MemoryImport(user=alice, format="claude", status="running", alive_at=old, messages=7)
    lost.save(force_insert=True)
    state = client.get(f"{IMPORTS}{lost.pk}/").json()
    assert (state["status"], state["detail"], state["messages"]) == (
        "failed",
        background.STOPPED,
        0,
    )
    assert imported(client, as_json(claude("1", claude_message("1", "a"))), "claude")["messages"]


def test_a_removal_keeps_the_empty_conversation_of_another_import(client: APIClient) -> None:
    imported(client, as_json(talk("1", "a")))
    later = imported(client, as_json(talk("1", "a", "b")))
    StandaloneChatMessage.objects.get(content="a").delete()
    assert client.delete(f"{IMPORTS}{later['id']}/").status_code == 204
    assert StandaloneChat.objects.get().messages.count() == 0


def wait_for_the_worker() -> None:
    until = time.monotonic() + PATIENCE_S
    while background._worker.jobs and time.monotonic() < until:
        time.sleep(0.02)
    assert not background._worker.jobs


def test_an_import_that_was_taken_for_dead_adds_nothing(
    client: APIClient, busy: Callable[[], None]
) -> None:
    number = post(client, as_json(talk("1", "a"))).json()["id"]
    assert MemoryImport.objects.filter(pk=number).update(status="failed", detail="gone") == 1
    busy()
    wait_for_the_worker()
    assert not StandaloneChatMessage.objects.exists()
    assert client.get(f"{IMPORTS}{number}/").json()["detail"] == "gone"


def test_an_erasure_ends_an_import_that_runs(client: APIClient, busy: Callable[[], None]) -> None:
    number = post(client, as_json(talk("1", "a"))).json()["id"]
    erased = client.delete("/api/memory/", {"confirm": "alice"}, format="json").json()
    assert erased["deleted"]["memory_imports"] == 1
    busy()
    wait_for_the_worker()
    assert not StandaloneChatMessage.objects.exists()
    assert client.get(f"{IMPORTS}{number}/").status_code == 404
