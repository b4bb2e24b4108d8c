"""/admin/memory/: numbers and plots for staff, quick whatever the tables' sizes."""

from io import StringIO

import pytest
from django.contrib.auth.models import User
from django.core.management import call_command
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.memory_overview import points
from chat.models import MemorySwitch, StandaloneChat
from fake_openai import FakeOpenAI
from retrieval import current_model, overview
from retrieval.models import MessageMemory, RecallMeasurement

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
    MessageMemory.objects.update(embedding_error=None)
    MemorySwitch.objects.create(user=alice, enabled=False)
    assert pending() == [0, 0]


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
    assert "criterion.1" not in client.post(PAGE).content.decode()


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


def test_points_stay_in_their_box() -> None:
    assert points([0.5, 0.95, 2], lowest=0.9, highest=1.0) == "0.0,80.0 300.0,40.0 600.0,0.0"
