"""A browser for all tests, and for each test a page whose errors fail it."""

import re
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Locator, Page, expect, sync_playwright
from pytest_django import DjangoDbBlocker

from fake_openai import FakeOpenAI
from tests.browser import chromium
from tests.support import Server, memory_settings, serve_test_database

PASSWORD = "alice's password"  # of the fixture alice
FOLDER = str(Path(__file__).parent)
expect.set_options(timeout=30_000)  # the machine may be busy


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Without a browser these tests are left out (conftest.py says so); in CI they fail."""
    if chromium.is_left_out():
        for item in items:
            if str(item.path).startswith(FOLDER):
                item.add_marker(pytest.mark.skip(reason=chromium.MISSING))


@pytest.fixture(scope="package")
def browser(django_db_setup: None) -> Iterator[Browser]:
    """Playwright keeps an event loop in this thread, where Django would refuse the ORM."""
    with pytest.MonkeyPatch.context() as patch, sync_playwright() as playwright:
        patch.setenv("DJANGO_ALLOW_ASYNC_UNSAFE", "1")
        running = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.OPTIONS)
        )
        yield running
        running.close()


@pytest.fixture(scope="package")
def shared_site(openai_server: FakeOpenAI, django_db_blocker: DjangoDbBlocker) -> Iterator[Server]:
    """A server with memory for all browser tests."""
    yield from serve_test_database(
        django_db_blocker, openai_server, **memory_settings(openai_server)
    )


@pytest.fixture
def site(transactional_db: None, shared_site: Server, openai_server: FakeOpenAI) -> Server:
    """The shared server, on empty tables."""
    openai_server.reset()
    return shared_site


@pytest.fixture
def new_page(browser: Browser, site: Server) -> Iterator[Callable[..., Page]]:
    """Opens a page in a new context; errors of scripts and refused loads fail the test."""
    problems: list[str] = []
    contexts = []

    def open_page(**options: object) -> Page:
        context = browser.new_context(**{"base_url": site.url} | options)  # type: ignore[arg-type]
        contexts.append(context)
        page = context.new_page()
        page.on("pageerror", lambda error: problems.append(str(error)))
        page.on(
            "console",
            lambda line: problems.append(line.text) if "Content Security" in line.text else None,
        )
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert not problems


@pytest.fixture
def page(new_page: Callable[..., Page], alice: User) -> Page:
    """The chat page, signed in as alice."""
    opened = new_page()
    sign_in(opened)
    return opened


def sign_in(page: Page, name: str = "alice", password: str = PASSWORD) -> None:
    page.goto("/")
    page.get_by_label("Username").fill(name)
    page.get_by_label("Password").fill(password)
    page.get_by_role("button", name="Sign in").click()
    page.get_by_role("textbox", name="Message").wait_for()


def box(page: Page) -> Locator:
    """Where one writes."""
    return page.get_by_role("textbox", name="Message")


def send(page: Page, text: str) -> None:
    box(page).fill(text)
    box(page).press("Enter")


def ask(page: Page, text: str) -> None:
    """Send a message and wait for its answer's end."""
    send(page, text)
    expect(page.locator(".message.user .content").last).to_have_text(text)
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()


def new_conversation(page: Page) -> None:
    page.get_by_role("button", name="New conversation").click()
    expect(page.get_by_text("What is on your mind?")).to_be_visible()


def open_card(page: Page, text: str) -> Locator:
    """Open the card of memories; the memory with this text."""
    page.get_by_text(re.compile("memories used")).click()
    quoted = page.locator("blockquote", has_text=text)
    return page.locator(".memory", has=quoted)


def last_prompt(fake: FakeOpenAI) -> str:
    """The messages that the model was sent last, as text."""
    return str(fake.chat.requests[-1].body["messages"])
