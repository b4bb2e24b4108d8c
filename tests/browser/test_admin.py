"""The admin's pages: axe finds nothing in them, light and dark, and they can be used."""

import os
import re
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from django.utils import timezone
from playwright.sync_api import Page, expect

from chat.models import StandaloneChat, StandaloneChatMessage
from retrieval.doctor import last_run
from retrieval.doctor.report import Check, failed, passed
from retrieval.models import (
    EmbeddingModel,
    EmbeddingUsage,
    MessageMemory,
    RecallMeasurement,
)
from tests.browser.conftest import sign_in
from tests.browser.test_accessibility import AXE, violations

pytestmark = pytest.mark.django_db(transaction=True)
LIST = "/admin/chat/standalonechatmessage/"
TEXTS = [
    ("user", "I keep bees in Graz, on the roof of the university."),
    ("assistant", "How many hives are there, and who looks after them in winter?"),
    ("user", "Three. My neighbour Hanna does, when I am away."),
    ("assistant", "Then Hanna will know about the mites too."),
]


@pytest.fixture
def chat(alice: User) -> StandaloneChat:
    """A superuser's conversation: messages in each state, and an answer that used a memory."""
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    chat = StandaloneChat.objects.create(user=alice, title="Bees")
    model = EmbeddingModel.objects.create(name="text-embedding-3-small", current=True)
    messages = [
        chat.messages.create(user=alice, role=role, content=text, context=[])
        for role, text in TEXTS
    ]
    first, second, third, last = (message.pk for message in messages)
    MessageMemory.objects.filter(pk__in=[first * 2, second * 2]).update(model=model)
    MessageMemory.objects.filter(pk=third * 2).update(embedding_error="the service refused: 400")
    StandaloneChatMessage.objects.filter(pk=last).update(
        context=[{"kind": "chat", "id": first, "score": 1}], reply_to=third
    )
    chat.messages.create(user=alice, role="assistant", content="", status="failed")
    return chat


@pytest.fixture
def history() -> None:
    """A month of costs and of measured recall, and a run of the doctor."""
    now = timezone.now()
    for days in range(30):
        # Not the model of the shared server, which may still add what an earlier test used.
        EmbeddingUsage.objects.create(
            day=now.date() - timedelta(days=days), model="text-embedding-3-large", outcome="ok",
            calls=1, texts=100, tokens=10_000, cost_usd=0.0002 * (1 + days % 7),
        )  # fmt: skip
        RecallMeasurement.objects.create(
            measured_at=now - timedelta(days=days), questions=200, users=20,
            recall=0.999 - 0.002 * (days % 5), p50_ms=4, p95_ms=9 + days % 4,
        )  # fmt: skip
    checks = [
        (Check("criterion.1", lambda: passed("")), passed("the server starts without errors")),
        (
            Check("trap.14", lambda: passed("")),
            failed("an index is invalid", "manage.py rag_index rebuild"),
        ),
    ]
    last_run.keep(checks, who="alice")


def pages(chat: StandaloneChat) -> dict[str, str]:
    """The address of each page, by name."""
    last = chat.messages.filter(context__isnull=False).order_by("-pk").first()
    assert last
    return {
        "index": "/admin/",
        "messages": LIST,
        "messages-filtered": f"{LIST}?state=pending&since=2020-01-01T00:00&q=alice",
        "message": f"{LIST}{last.pk}/change/",
        "conversations": "/admin/chat/standalonechat/",
        "conversation": f"/admin/chat/standalonechat/{chat.pk}/change/",
        "overview": "/admin/memory/",
        "audit": "/admin/retrieval/auditline/",
        "users": "/admin/auth/user/",
    }


@pytest.mark.newest_schema
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_axe_finds_nothing_in_the_admin(
    scheme: str, new_page: Callable[..., Page], chat: StandaloneChat, history: None
) -> None:
    # On tables axe sets styles inline, which the policy would report.
    page = new_page(color_scheme=scheme, bypass_csp=True)
    page.add_init_script(AXE.read_text())
    sign_in(page)
    faults = {}
    for name, address in pages(chat).items():
        page.goto(address)
        expect(page.locator("#content")).to_be_visible()
        faults[name] = violations(page)
        if folder := os.environ.get("SCREENSHOTS"):
            page.screenshot(path=Path(folder) / f"admin-{name}-{scheme}.png", full_page=True)
    assert {name: what for name, what in faults.items() if what} == {}


@pytest.mark.soak
def test_an_operator_embeds_a_message_and_sees_its_conversation(
    new_page: Callable[..., Page], chat: StandaloneChat, history: None
) -> None:
    page = new_page(viewport={"width": 1280, "height": 900})
    sign_in(page)
    page.goto(f"{LIST}?state=pending")
    row = page.get_by_role("row").filter(has_text=TEXTS[-1][1])
    row.get_by_role("checkbox").check()
    page.get_by_role("combobox", name="Action").select_option("Embed now")
    page.get_by_role("button", name="Go").click()
    expect(page.get_by_text("are embedded now")).to_be_visible()
    page.goto(LIST)
    expect(row).to_be_visible()
    page.wait_for_function(
        "() => fetch(location).then(r => r.text()).then(t => !t.includes('>pending</td>'))"
    )
    page.reload()
    row.get_by_role("link").click()
    expect(page.get_by_text("1536")).to_be_visible()
    page.get_by_role("link", name="Bees").click()
    expect(page.get_by_role("listitem").filter(has_text=TEXTS[0][1])).to_be_visible()
    page.goto("/admin/memory/")
    expect(page.get_by_role("img", name="recall@5")).to_be_visible()
    page.goto(LIST)
    page.get_by_label("From").fill("2026-01-01T10:00")
    page.get_by_role("button", name="Filter").click()
    expect(page).to_have_url(re.compile("since=2026-01-01"))
    expect(row).to_be_visible()
