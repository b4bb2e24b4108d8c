"""/admin/memory/: numbers and plots for staff, quick whatever the tables' sizes."""

import pytest
from django.contrib.auth.models import User
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext

from chat.memory_overview import points
from chat.models import StandaloneChat
from fake_openai import FakeOpenAI
from retrieval import overview
from retrieval.models import RecallMeasurement

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
    assert [table.pending for table in overview.collect().tables] == [1, 0]
    assert "Memory overview" in admin_client.get("/admin/").content.decode()


def test_the_button_runs_the_doctor(admin_client: Client) -> None:
    page = admin_client.post(PAGE).content.decode()
    assert "criterion.1" in page
    assert "trap.26" in page


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
