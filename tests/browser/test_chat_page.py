"""The story of memory on the chat page: tell, ask elsewhere, see what was used, forget it."""

import re
from collections.abc import Callable
from typing import Any

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.browser.conftest import ask, box, last_prompt, new_conversation, open_card, sign_in

pytestmark = pytest.mark.django_db(transaction=True)
FACT = "My sister Ines lives in Porto and keeps three goats."
QUESTION = "Where does my sister Ines live?"
SCREENS: dict[str, dict[str, Any]] = {
    "wide": {},
    "narrow": {"viewport": {"width": 360, "height": 740}},
    "dark": {"color_scheme": "dark"},
}


@pytest.mark.newest_schema
@pytest.mark.parametrize(
    "screen",
    ["wide", *(pytest.param(name, marks=pytest.mark.soak) for name in ("narrow", "dark"))],
)
def test_a_fact_is_recalled_until_it_is_forgotten(
    screen: str, new_page: Callable[..., Page], alice: User, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Good to know: **Porto**.")
    page = new_page(**SCREENS[screen])
    sign_in(page)
    ask(page, FACT)
    expect(page.locator(".message.assistant strong")).to_have_text("Porto")
    new_conversation(page)
    ask(page, QUESTION)
    assert FACT in last_prompt(openai_server)
    fact = open_card(page, FACT)
    fact.get_by_role("link").click()
    expect(page.locator(".found")).to_contain_text(FACT)
    page.go_back()
    expect(page.get_by_role("heading", name=QUESTION)).to_be_visible()
    fact = open_card(page, FACT)
    fact.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(page.get_by_text("Forgotten.")).to_be_visible()
    new_conversation(page)
    ask(page, QUESTION)
    assert FACT not in last_prompt(openai_server)
    assert not StandaloneChatMessage.objects.filter(content=FACT).exists()


@pytest.mark.newest_schema
def test_the_same_by_keyboard(page: Page, openai_server: FakeOpenAI) -> None:
    openai_server.chat.default = Answer("Good to know.")
    keys = page.keyboard
    keys.type(FACT)
    keys.press("Enter")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    tab_to(page, "New conversation")
    keys.press("Enter")
    expect(page.get_by_text("What is on your mind?")).to_be_visible()
    keys.type(QUESTION)
    keys.press("Enter")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    tab_to(page, re.compile("memories used"), back=True)
    keys.press("Enter")
    tab_to(page, "Forget")
    keys.press("Enter")
    keys.press("Tab")
    expect(page.get_by_role("dialog")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    keys.press("Enter")
    tab_to(page, "Forget")
    keys.press("Enter")
    expect(page.get_by_text("Forgotten.")).to_be_visible()
    keys.press("Escape")
    expect(page.get_by_text("Forgotten.")).to_be_hidden()


def tab_to(page: Page, name: str | re.Pattern[str], *, back: bool = False) -> None:
    """Press Tab until the focused element has the name."""
    for _ in range(60):
        page.keyboard.press("Shift+Tab" if back else "Tab")
        focused = page.evaluate("document.activeElement.textContent")
        if re.fullmatch(name, focused) if isinstance(name, str) else name.search(focused):
            return
    raise AssertionError(f"Tab does not reach {name}")


@pytest.mark.soak
def test_conversations_are_renamed_searched_and_deleted(
    page: Page, openai_server: FakeOpenAI, alice: User
) -> None:
    ask(page, FACT)
    page.get_by_role("button", name="Rename").click()
    page.get_by_label("Title").fill("Family")
    page.get_by_role("dialog").get_by_role("button", name="Rename").click()
    conversations = page.get_by_role("navigation", name="Conversations")
    expect(conversations.get_by_role("link", name="Family")).to_be_visible()
    assert StandaloneChat.objects.get().title == "Family"
    new_conversation(page)
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("goats")
    page.keyboard.press("Enter")
    page.locator(".memory", has_text=FACT).first.get_by_role("link", name="Family").click()
    expect(page.locator(".found")).to_contain_text(FACT)
    page.get_by_role("button", name="Delete").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(conversations.get_by_role("link")).to_have_count(0)
    assert not StandaloneChat.objects.exists()


@pytest.mark.soak
def test_the_last_question_is_edited_and_asked_again(page: Page, openai_server: FakeOpenAI) -> None:
    ask(page, "What is two and too?")
    page.locator(".message.user").get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").get_by_label("Message").fill("What is two and two?")
    openai_server.chat.default = Answer("Four.")
    page.get_by_role("button", name="Save and ask again").click()
    expect(page.locator(".message.assistant .content")).to_have_text("Four.")
    assert "two and two?" in last_prompt(openai_server)


@pytest.mark.soak
def test_a_passage_stands_beside_its_chat(page: Page, openai_server: FakeOpenAI) -> None:
    page.get_by_role("button", name="New passage").click()
    page.get_by_label("Reference").fill("Ruth 1")
    page.get_by_label("Text").fill("Whither thou goest, I will go.")
    page.get_by_role("button", name="Begin").click()
    expect(page.get_by_text("Whither thou goest")).to_be_visible()
    ask(page, "Who says this?")
    assert "Whither thou goest" in last_prompt(openai_server)
    page.reload()
    expect(page.get_by_text("Whither thou goest")).to_be_visible()


@pytest.mark.soak
def test_switches_turn_memory_off(page: Page, openai_server: FakeOpenAI) -> None:
    ask(page, FACT)
    page.get_by_label("Memory here").uncheck()
    expect(page.get_by_role("status").last).to_have_text("Memory is off here")
    new_conversation(page)
    ask(page, QUESTION)
    assert FACT not in last_prompt(openai_server)
    page.get_by_label("Memory for me").uncheck()
    expect(page.get_by_text("Memory is off for you")).to_be_visible()


def test_shift_enter_makes_a_line_and_drafts_survive_a_reload(page: Page) -> None:
    box(page).press_sequentially("one")
    box(page).press("Shift+Enter")
    box(page).press_sequentially("two")
    page.reload()
    expect(box(page)).to_have_value("one\ntwo")
    page.get_by_role("button", name="Sign out").click()
    assert page.evaluate("Object.keys(localStorage)") == []


def test_who_signs_out_of_the_admin_leaves_no_draft(page: Page, alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True)
    box(page).fill("a secret")
    page.goto("/admin/")
    page.get_by_role("button", name="Log out").click()
    expect(page.get_by_label("Password")).to_be_visible()
    assert page.evaluate("Object.keys(localStorage)") == []


@pytest.mark.soak
def test_keys_move_in_lists_and_drop_an_edit(page: Page, openai_server: FakeOpenAI) -> None:
    ask(page, "First")
    new_conversation(page)
    ask(page, "Second")
    links = page.get_by_role("navigation", name="Conversations").get_by_role("link")
    links.first.focus()
    page.keyboard.press("ArrowDown")
    expect(links.nth(1)).to_be_focused()
    page.keyboard.press("ArrowUp")
    expect(links.first).to_be_focused()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()
    page.keyboard.type("a/b")
    expect(page.get_by_role("searchbox", name="Search")).to_have_value("a/b")
    page.locator(".message.user").get_by_role("button", name="Edit").click()
    page.keyboard.type("Something else")
    page.keyboard.press("Escape")
    expect(page.get_by_role("dialog")).to_be_hidden()
    expect(page.locator(".message.user .content")).to_have_text("Second")
    expect(page.locator(".message.user").get_by_role("button", name="Edit")).to_be_focused()
