"""docs/tutorial.md as a reader follows it, and the pictures of the docs: ``make screenshots``.

The sample conversations, recalled by the bundled embedding model. A fake model answers, since the
bundled language model is too small for a picture.
"""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django import Settings

from chat.samples.loading import load
from fake_openai import Answer, FakeOpenAI
from retrieval import runtime
from retrieval.backfill import backfill
from tests.browser.conftest import ask, box, last_prompt, new_conversation, open_card
from tests.support import ROOT, Server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.newest_schema,
    pytest.mark.soak,
]
QUESTION = "Are we flying to Trieste or taking the train?"
BOOKED = "Booked: we take the train to Trieste"
ANSWERS = {
    QUESTION: (
        "You are taking the **train**. You first thought of flying, but the airline moved the"
        " flight to the evening, and you cancelled it.\n\n"
        "- Saturday 24 October, coach 257, seats 61 to 64\n"
        "- 338 euros for all of you, both ways"
    ),
    "My sister Ines": "How nice! I will remember the goats.",
    "Where does": "Ines lives in **Porto**, with her three goats.",
    "Corrected": "Ines lives in **Braga** now, with her three goats.",
}
FACT = "My sister Ines lives in Porto and keeps three goats."


@pytest.fixture
def site(
    alice: User, server: Callable[..., Server], openai_server: FakeOpenAI, settings: Settings
) -> Server:
    """The samples, embedded, of alice, who is called demo here."""
    User.objects.filter(pk=alice.pk).update(username="demo")
    alice.refresh_from_db()
    settings.EMBEDDINGS = "local"
    runtime.reset()
    load(alice)
    backfill(batch_size=32)
    return server(EMBEDDINGS="local")


@pytest.fixture
def shoot(tmp_path: Path) -> Callable[[Page, str], None]:
    """Takes a picture, into the folder that SCREENSHOTS names."""
    named = os.environ.get("SCREENSHOTS")
    folder = ROOT / named if named else tmp_path

    def take(page: Page, name: str) -> None:
        page.mouse.move(0, 0)
        page.screenshot(path=folder / f"{name}.png", animations="disabled")

    return take


def open_page(new_page: Callable[..., Page], **options: Any) -> Page:
    page = new_page(**{"viewport": {"width": 1100, "height": 760}} | options)
    page.goto("/")
    page.get_by_label("Username").fill("demo")
    page.get_by_label("Password").fill("alice's password")
    page.get_by_role("button", name="Sign in").click()
    box(page).wait_for()
    return page


def answer(fake: FakeOpenAI, name: str) -> None:
    fake.chat.default = Answer(ANSWERS[name])


def test_the_tutorial_is_right(
    new_page: Callable[..., Page],
    openai_server: FakeOpenAI,
    shoot: Callable[[Page, str], None],
) -> None:
    page = open_page(new_page)
    expect(page.get_by_role("link", name="Train to Trieste")).to_be_visible()
    shoot(page, "tutorial-start")
    answer(openai_server, QUESTION)
    page.get_by_role("button", name=QUESTION).click()
    booked = open_card(page, BOOKED)
    expect(booked).to_be_visible()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    shoot(page, "chat")
    booked.get_by_role("link").click()
    expect(page.locator(".found")).to_contain_text(BOOKED)
    shoot(page, "tutorial-place")
    tell_correct_and_forget(page, openai_server, shoot)
    page.goto("/memory/?q=Trieste")
    expect(page.locator(".memory").first).to_be_visible()
    shoot(page, "memory")


def tell_correct_and_forget(
    page: Page, fake: FakeOpenAI, shoot: Callable[[Page, str], None]
) -> None:
    new_conversation(page)
    answer(fake, "My sister Ines")
    ask(page, FACT)
    new_conversation(page)
    answer(fake, "Where does")
    ask(page, "Where does my sister Ines live?")
    fact = open_card(page, FACT)
    fact.get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").get_by_label("Message").fill(FACT.replace("Porto", "Braga"))
    shoot(page, "tutorial-edit")
    page.get_by_role("button", name="Save", exact=True).click()
    answer(fake, "Corrected")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".message.assistant strong")).to_have_text("Braga")
    assert "Braga" in last_prompt(fake)
    corrected = open_card(page, "Braga")
    corrected.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(page.get_by_text("Forgotten.")).to_be_visible()
    new_conversation(page)
    ask(page, "Where does my sister Ines live?")
    assert "three goats" not in last_prompt(fake)


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("chat-dark", {"color_scheme": "dark"}),
        ("chat-narrow", {"viewport": {"width": 360, "height": 740}, "device_scale_factor": 2}),
    ],
)
def test_the_page_in_other_screens(
    name: str,
    options: dict[str, Any],
    new_page: Callable[..., Page],
    openai_server: FakeOpenAI,
    shoot: Callable[[Page, str], None],
) -> None:
    answer(openai_server, QUESTION)
    page = open_page(new_page, **options)
    page.get_by_role("button", name=QUESTION).click()
    expect(open_card(page, BOOKED)).to_be_visible()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    page.locator("details.memories summary").scroll_into_view_if_needed()
    shoot(page, name)
