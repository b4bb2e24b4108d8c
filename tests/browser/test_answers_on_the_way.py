"""Answers on the page while they come: stopped, reloaded in the middle, cut off, tried again."""

import re
from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect
from pytest_django import DjangoDbBlocker

from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, CutAfter, FakeOpenAI, Refuse
from tests.browser.conftest import box, send, sign_in
from tests.support import Server, serve_test_database

pytestmark = pytest.mark.django_db(transaction=True)
WORDS = [f"word{number}" for number in range(60)]
SLOW = Answer(" ".join(WORDS), tokens_per_s=12)


@pytest.fixture(scope="module")
def shared_site(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """Two processes: a reload often meets the other one."""
    settings = {"WEB_CONCURRENCY": "2", "EMBEDDINGS": "none", "THROTTLE_MESSAGES": "6/min"}
    yield from serve_test_database(django_db_blocker, openai_server, **settings)


def shown(page: Page) -> str:
    return page.locator(".message.assistant .content").last.inner_text()


def wait_for_word(page: Page, number: int) -> None:
    expect(page.locator(".message.assistant .content").last).to_contain_text(f"word{number} ")


def test_after_a_reload_no_word_is_lost_or_doubled(page: Page, openai_server: FakeOpenAI) -> None:
    openai_server.chat.default = SLOW
    send(page, "Count")
    for number in (3, 12, 22):
        wait_for_word(page, number)
        page.reload()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    assert shown(page).split() == WORDS


@pytest.mark.soak
def test_stop_ends_an_answer_and_escape_does_not(page: Page, openai_server: FakeOpenAI) -> None:
    openai_server.chat.default = SLOW
    send(page, "Count")
    wait_for_word(page, 2)
    page.keyboard.press("Escape")
    wait_for_word(page, 6)
    page.get_by_role("button", name="Stop").click()
    expect(page.get_by_text("stopped before its end")).to_be_visible()
    assert StandaloneChatMessage.objects.get(role="assistant").status == "interrupted"
    openai_server.chat.default = Answer("Anew.")
    page.get_by_role("button", name="Regenerate").click()
    expect(page.locator(".message.assistant .content")).to_have_text("Anew.")


def test_a_failed_answer_is_tried_again_with_the_same_key(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.script(Refuse(401), CutAfter("Half an "))
    send(page, "Hello")
    expect(page.locator(".note:visible")).to_be_visible()
    page.reload()
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".note:visible")).to_be_visible()
    expect(page.locator(".message.assistant .content")).to_have_text("Half an")
    openai_server.chat.default = Answer("Whole.")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".message.assistant .content")).to_have_text("Whole.")
    assert StandaloneChatMessage.objects.count() == 2


@pytest.mark.soak
def test_refused_texts_stay_in_the_box(
    page: Page, new_page: Callable[..., Page], alice: User, openai_server: FakeOpenAI
) -> None:
    long = "x" * 100_000
    send(page, long)
    expect(page.get_by_text(re.compile("32,?000"))).to_be_visible()
    assert box(page).input_value() == long
    openai_server.chat.default = SLOW
    send(page, "First tab")
    wait_for_word(page, 1)
    second = page.context.new_page()
    second.goto(page.url)
    second.locator("#send").evaluate("button => button.disabled = false")
    box(second).fill("Second tab")
    second.evaluate("document.querySelector('#composer').requestSubmit()")
    expect(box(second)).to_have_value("Second tab")
    StandaloneChat.objects.all().delete()
    expect(page.locator(".note:visible")).to_contain_text("not here any more")
    send(page, "Into a deleted conversation")
    expect(page.locator("#trouble")).to_contain_text("not here any more")
    expect(box(page)).to_have_value("Into a deleted conversation")
    page.context.clear_cookies()
    page.get_by_role("button", name="New conversation").click()
    send(page, "Signed out elsewhere")
    page.get_by_role("link", name="Sign in").click()
    sign_in(page)
    expect(box(page)).to_have_value("Signed out elsewhere")


@pytest.mark.soak
def test_without_a_connection_the_text_is_kept_and_sent_once(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Here.")
    send(page, "Hello")
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    page.context.set_offline(True)
    send(page, "Are you there?")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.context.set_offline(False)
    page.reload()
    expect(page.get_by_text("Are you there?")).to_be_visible()
    page.get_by_role("button", name="Try again").click()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    assert StandaloneChatMessage.objects.filter(content="Are you there?").count() == 1
