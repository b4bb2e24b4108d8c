"""rag_rollout: its states, which users a share means, the figures, the fuse."""

import json
import logging
from collections.abc import Iterator
from datetime import timedelta
from io import StringIO
from itertools import pairwise
from typing import Any

import pytest
from django.contrib.auth.models import User
from django.core.management import CommandError, call_command
from django.db import connection
from django.test import Client

from retrieval import audit, runtime
from retrieval.doctor.check_rollout import fuse_is_whole
from retrieval.doctor.report import Status
from retrieval.rollout import fuse, recall_times, state
from retrieval.rollout.recall_times import Bucket
from retrieval.rollout.state import State
from retrieval.rollout_models import Rollout
from tests.databases import Database

pytestmark = [pytest.mark.newest_schema, pytest.mark.django_db(transaction=True)]
SHARES = ["1%", "2.5%", "5%", "20%", "50%", "99.9%", "100%"]


@pytest.fixture(autouse=True)
def forgetful() -> Iterator[None]:
    runtime.reset()
    yield
    runtime.reset()


def rollout(*arguments: str) -> dict[str, Any]:
    out = StringIO()
    call_command("rag_rollout", *arguments, "--json", stdout=out)
    return dict(json.loads(out.getvalue()))


def given(share: str, users: range) -> set[int]:
    return {user for user in users if State(share).gives_memories(user)}


@pytest.mark.parametrize("first", [1, 5_000, 10**12])
@pytest.mark.parametrize("step", [1, 2, 7, 10, 1000])
def test_shares_are_nested_and_exact_for_1000_users(first: int, step: int) -> None:
    users = range(first, first + 1_000 * step, step)
    sets = [given(share, users) for share in SHARES]
    assert all(smaller <= larger for smaller, larger in pairwise(sets))
    for share, chosen in zip(SHARES, sets, strict=True):
        assert abs(len(chosen) / 10 - float(share.rstrip("%"))) <= 3
    assert len(sets[-1]) == 1_000


def test_without_a_row_the_state_is_on_and_nothing_was_counted() -> None:
    none = {"count": 0, "errors": 0, "p50_ms": None, "p95_ms": None, "added_tokens": 0}
    fuse = {"ms": None, "errors": None, "blown_at": None}
    assert rollout() == {"state": "on", "fuse": fuse, "hour": none, "day": none}


def test_a_state_keeps_the_fuse_until_another_is_given() -> None:
    assert rollout("dark", "--fuse-ms", "300", "--fuse-errors", "5")["state"] == "dark"
    report = rollout("5.0%")
    assert (report["state"], report["fuse"]["ms"], report["fuse"]["errors"]) == ("5%", 300, 5)
    report = rollout("2.5%", "--fuse-ms", "none")
    assert (report["state"], report["fuse"]["ms"], report["fuse"]["errors"]) == ("2.5%", None, 5)
    assert [line.what for line in audit.lines()] == [
        f"rag_rollout {name}" for name in ("dark", "5%", "2.5%")
    ]


@pytest.mark.parametrize(
    "arguments",
    ["0%", "0.9%", "101%", "100.1%", "5.25%", "5", "half", "-5%", "on --fuse-ms x", "--fuse-ms 5"],
)
def test_what_is_no_state_is_refused(arguments: str) -> None:
    with pytest.raises(CommandError):
        rollout(*arguments.split())
    assert rollout()["state"] == "on"


def test_wrong_usage_is_exit_code_2(database: Database) -> None:
    for arguments in (["101%"], ["--fuse-errors", "5"]):
        ended = database.command("rag_rollout", *arguments)
        assert ended.returncode == 2
        assert "Traceback" not in ended.stderr


def test_it_says_whether_a_user_is_given_memories(alice: User) -> None:
    assert rollout("--user", "alice")["given"] is True
    assert rollout("dark", "--user", "alice")["given"] is False
    with pytest.raises(CommandError, match="no user carol"):
        rollout("--user", "carol")


def test_figures_are_within_the_width_of_a_bucket() -> None:
    for milliseconds in range(1, 101):
        recall_times.record(milliseconds / 1_000, added_tokens=2)
    recall_times.record(3.0, failed=True)
    assert recall_times.flush()
    assert not recall_times.flush()
    day = rollout()["day"]
    assert (day["count"], day["errors"], day["added_tokens"]) == (101, 1, 200)
    assert day["p50_ms"] == pytest.approx(51, rel=0.05)
    assert day["p95_ms"] == pytest.approx(96, rel=0.05)
    recall_times.record(0.001)
    recall_times.flush()
    assert rollout()["hour"]["count"] == 102


def test_percentiles_of_one_and_of_none() -> None:
    assert recall_times.percentile([], 0.5) is None
    assert recall_times.percentile([Bucket(9, 1, 0, 0)], 0.5) == recall_times.percentile(
        [Bucket(9, 1, 0, 0)], 0.95
    )


def test_old_rows_are_deleted(monkeypatch: pytest.MonkeyPatch) -> None:
    recall_times.record(0.001)
    recall_times.flush()
    recall_times.purge()
    assert rollout()["day"]["count"] == 1
    monkeypatch.setattr(recall_times, "KEPT", timedelta(seconds=-60))
    recall_times.purge()
    assert rollout()["day"]["count"] == 0


def fail(times: int, *, seconds: float = 0.001) -> None:
    for _ in range(times):
        recall_times.record(seconds, failed=True)


def settle() -> None:
    """Let the slot of now be one that begins after the state was set."""
    row = Rollout.objects.get()
    Rollout.objects.update(set_at=row.set_at - timedelta(seconds=60))


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno >= logging.WARNING]


def test_more_errors_than_the_fuse_allows_turn_memory_dark(
    caplog: pytest.LogCaptureFixture, admin_client: Client
) -> None:
    rollout("20%", "--fuse-errors", "3")
    settle()
    fail(3)
    fuse.flush_and_check()
    assert rollout()["state"] == "20%"
    fail(1)
    fuse.flush_and_check()
    fuse.check()
    report = rollout()
    assert report["state"] == "dark"
    assert report["fuse"]["blown_at"]
    reason = "4 recalls failed in one minute, more than 3"
    assert warnings(caplog) == [f"Recall fuse: {reason}; rag_rollout is now dark"]
    finding = fuse_is_whole()
    assert finding.status is Status.FAIL
    assert reason in finding.detail
    assert "blown at" in admin_client.get("/admin/memory/").content.decode()
    rollout("on")
    assert fuse_is_whole().status is Status.PASS
    assert rollout()["fuse"]["blown_at"] is None


def test_a_state_that_is_set_again_forgets_earlier_errors() -> None:
    rollout("on", "--fuse-errors", "0")
    fail(5)
    recall_times.flush()
    rollout("on")
    fuse.check()
    assert rollout()["state"] == "on"


@pytest.mark.parametrize(("recalls", "blown"), [(19, "on"), (20, "dark")])
def test_the_fuse_of_time_needs_twenty_recalls(recalls: int, blown: str) -> None:
    rollout("on", "--fuse-ms", "100")
    settle()
    for _ in range(recalls):
        recall_times.record(0.120)
    fuse.flush_and_check()
    assert rollout()["state"] == blown


def test_in_the_dark_there_is_nothing_to_blow() -> None:
    rollout("dark", "--fuse-errors", "0")
    settle()
    fail(5)
    fuse.flush_and_check()
    assert rollout()["fuse"]["blown_at"] is None


def test_only_one_process_blows_the_fuse() -> None:
    rollout("on", "--fuse-errors", "0")
    seen = state.read()
    assert state.blow(seen, "first")
    assert not state.blow(seen, "second")
    assert state.read().blown_reason == "first"


@pytest.mark.soak
def test_on_an_older_schema_everybody_is_given_memories(database: Database) -> None:
    database.start_at("0015_client_chats")
    with database.connected():
        recall_times.record(0.001)
        fuse.flush_and_check()
        recall_times.purge()
        assert state.current() == State("on")
        assert recall_times.figures(recall_times.DAY).count == 0
    assert database.command("rag_rollout").stdout.startswith("Rollout: on")
    ended = database.command("rag_rollout", "dark")
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1)
    assert "run manage.py migrate" in ended.stderr


def test_when_the_table_goes_everybody_is_given_memories_at_once() -> None:
    """On the way back to an older schema, while servers run."""
    call_command("rag_rollout", "dark", verbosity=0)
    assert state.read().name == "dark"
    with connection.cursor() as cursor:
        cursor.execute("ALTER TABLE rag_rollout RENAME TO removed_rollout")
        try:
            assert state.read() == State("on")
        finally:
            cursor.execute("ALTER TABLE removed_rollout RENAME TO rag_rollout")
