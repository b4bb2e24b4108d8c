"""/admin/memory/: numbers and plots for staff, quick whatever the tables' sizes."""

from datetime import timedelta
from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from chat.models import MemorySwitch, StandaloneChat
from chat.plots import bars, points
from fake_openai import FakeOpenAI
from retrieval import current_model, overview, storage
from retrieval.doctor import last_run
from retrieval.doctor.report import Check, warning
from retrieval.models import (
    DoctorRun,
    EmbeddingUsage,
    MessageMemory,
    RecallMeasurement,
    message_tables,
)
from tests.databases import Database

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
PAGE = "/admin/memory/"


def test_it_shows_what_is_pending_and_recall_over_time(
    admin_client: Client, alice: User, remembering: FakeOpenAI
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    chat.messages.create(user=alice, role="user", content="a canary")
    page = admin_client.get(PAGE).content.decode()
    assert "No plot before two runs" in page
    assert "canary" not in page
    for recall in (1.0, 0.95):
        RecallMeasurement.objects.create(questions=5, users=1, recall=recall, p50_ms=2, p95_ms=9)
    page = admin_client.get(PAGE).content.decode()
    assert page.count("<polyline") == 2
    assert "recall@5, now 0.9500" in page
    assert pending() == [1, 0]
    assert "Memory overview" in admin_client.get("/admin/").content.decode()


def pending() -> list[int]:
    """How many messages of each table are pending."""
    return [table.pending.count for table in overview.collect().tables]


def test_pending_is_what_the_backfill_would_embed(alice: User, remembering: FakeOpenAI) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    hidden = StandaloneChat.objects.create(user=alice, memory=False)
    for number, conversation in enumerate((chat, chat, hidden)):
        conversation.messages.create(user=alice, role="user", content=f"message {number}")
    assert pending() == [2, 0]
    call_command("backfill_embeddings", "--sleep", "0", stdout=StringIO())
    assert pending() == [0, 0]
    current_model.switch("another model")
    assert pending() == [2, 0]
    MessageMemory.objects.exclude(model=None).update(embedding_error="refused")
    table = overview.collect().tables[0]
    assert (table.pending.count, table.failed.count) == (0, 2)
    current_model.switch("text-embedding-3-small")  # a vector that came after the refusal
    assert overview.collect().tables[0].failed.count == 0
    MessageMemory.objects.update(embedding_error=None)
    MemorySwitch.objects.create(user=alice, enabled=False)
    assert pending() == [0, 0]


def test_progress_is_a_percentage(alice: User, remembering: FakeOpenAI) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    for number in range(4):
        chat.messages.create(user=alice, role="user", content=f"message {number}")
    call_command("backfill_embeddings", "--sleep", "0", "--limit", "1", stdout=StringIO())
    storage.vacuum(message_tables())
    assert [table.percent for table in overview.collect().tables] == [25.0, 100.0]


def test_messages_that_no_backfill_has_seen_are_pending(
    admin_client: Client, alice: User, remembering: FakeOpenAI
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    chat.messages.create(user=alice, role="assistant", content="", status="streaming")
    for number in range(400):
        chat.messages.create(user=alice, role="user", content=f"message {number}")
    MessageMemory.objects.all().delete()  # as after migrate, on a live chat
    table = overview.collect().tables[0]
    assert 395 <= table.pending.count <= 401
    assert table.percent <= 1
    assert table.pending.oldest
    assert table.pending.oldest <= chat.messages.order_by("pk")[4].created_at
    assert overview.count_pending(message_tables()[1]).count == 0
    call_command("backfill_embeddings", "--sleep", "0", "--limit", "100", stdout=StringIO())
    assert pending() == [300, 0]


def test_progress_is_estimated_where_counting_stops(
    alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MAX_COUNTED", 2)
    test_progress_is_a_percentage(alice, remembering)


def test_costs_are_shown_by_day(admin_client: Client) -> None:
    today = timezone.now().date()
    for days, usd in ((0, 0.5), (3, 0.25), (60, 9.0)):
        day = today - timedelta(days=days)
        EmbeddingUsage.objects.create(
            day=day, model="m", outcome="ok", calls=1, texts=1, tokens=1, cost_usd=usd
        )
    page = admin_client.get(PAGE).content.decode()
    assert "Today</dt><dd>$0.5000" in page
    assert [cost.usd for cost in overview.collect().costs] == [0.0] * 26 + [0.25, 0, 0, 0.5]
    assert page.count("<title>") == 1 + 2  # the page's, and one for each bar


def test_counts_stop_and_say_so(
    admin_client: Client, alice: User, remembering: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(overview, "MAX_COUNTED", 2)
    chat = StandaloneChat.objects.create(user=alice)
    for number in range(3):
        chat.messages.create(user=alice, role="user", content=f"message {number}")
    assert "2 or more" in admin_client.get(PAGE).content.decode()


def test_the_button_runs_the_doctor_for_a_superuser(admin_client: Client, alice: User) -> None:
    page = admin_client.post(PAGE).content.decode()
    assert "criterion.1" in page
    assert "trap.26" in page
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    client = Client()
    client.force_login(alice)
    assert client.post(PAGE).status_code == 403
    assert "criterion.1" not in client.get(PAGE).content.decode()


def test_the_doctors_last_run_is_shown_with_its_age(admin_client: Client) -> None:
    assert "It has not been run from this page yet." in admin_client.get(PAGE).content.decode()
    check = Check("trap.99", lambda: warning("a detail", "a fix"))
    for _ in range(2):
        last_run.keep([(check, check.run())], who="carol")
    DoctorRun.objects.update(at=timezone.now() - timedelta(days=3))
    page = admin_client.get(PAGE).content.decode()
    assert "3\xa0days ago, by carol" in page
    assert "1 WARN" in page
    assert "trap.99" in page


def test_nothing_is_kept_on_a_schema_without_its_table(database: Database) -> None:
    database.start_at("0001_initial")
    with database.connected():
        check = Check("trap.99", lambda: warning("a detail", "a fix"))
        assert last_run.keep([(check, check.run())], who="carol").findings[0]["name"] == "trap.99"
        assert last_run.last() is None


def test_only_staff_see_it(alice: User) -> None:
    client = Client()
    assert client.get(PAGE)["Location"].startswith("/admin/login/")
    client.force_login(alice)
    assert client.get(PAGE)["Location"].startswith("/admin/login/")


def test_no_statement_counts_a_whole_table(admin_client: Client) -> None:
    with CaptureQueriesContext(connection) as queries:
        overview.collect()
    counts = [query["sql"] for query in queries if "count(" in query["sql"].lower()]
    assert all("LIMIT" in count for count in counts)


def test_bars_begin_at_zero() -> None:
    (bar,) = bars([0.0, 2.0], ["a", "b"])
    assert (bar.y, bar.height, bar.label) == ("0.0", "80.0", "b")


def test_points_stay_in_their_box() -> None:
    assert points([0.5, 0.95, 2], lowest=0.9, highest=1.0) == "0.0,80.0 300.0,40.0 600.0,0.0"
