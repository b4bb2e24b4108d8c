"""The memory page: the search that answers use, forget, edit, export, erase."""

from collections.abc import Callable
from datetime import UTC, datetime

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import Passage, Role, StandaloneChat, StandaloneChatMessage
from fake_openai import FakeOpenAI
from tests.browser.conftest import ask, sign_in
from tests.support import Server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.newest_schema
def test_memory_is_searched_edited_exported_and_erased(page: Page, alice: User) -> None:
    ask(page, "My bees live in Graz.")
    page.get_by_role("link", name="Memory").click()
    expect(page.get_by_text("2 messages")).to_be_visible()
    page.get_by_role("searchbox", name="Search").fill("bees")
    page.get_by_label("Said by").select_option("me")
    page.get_by_role("button", name="Search").click()
    memory = page.locator(".memory")
    expect(memory).to_have_count(1)
    memory.get_by_role("button", name="Edit").click()
    page.get_by_role("dialog").get_by_label("Message").fill("My bees live in Linz.")
    page.get_by_role("button", name="Save").click()
    expect(memory.locator("blockquote")).to_have_text("My bees live in Linz.")
    assert StandaloneChatMessage.objects.filter(content="My bees live in Linz.").exists()
    with page.expect_download() as download:
        page.get_by_role("link", name="Export").click()
    assert "My bees live in Linz." in download.value.path().read_text()
    page.get_by_role("button", name="Erase").click()
    page.get_by_label("Write your username").fill("alicia")
    page.get_by_role("dialog").get_by_role("button", name="Erase").click()
    expect(page.get_by_text("nothing was erased")).to_be_visible()
    page.get_by_role("button", name="Erase").click()
    page.get_by_label("Write your username").fill("alice")
    page.get_by_role("dialog").get_by_role("button", name="Erase").click()
    expect(page.get_by_text("Erased at")).to_be_visible()
    assert not StandaloneChat.objects.exists()


def remember(user: User, day: int, role: Role, text: str) -> None:
    """A message of that day of October 2026, in a chat of its own."""
    chat = StandaloneChat.objects.create(user=user, title=text[:20])
    StandaloneChatMessage.objects.create(
        user=user,
        conversation=chat,
        role=role,
        content=text,
        created_at=datetime(2026, 10, day, 12, tzinfo=UTC),
    )


@pytest.mark.soak
def test_a_search_is_narrowed_by_author_place_and_time(page: Page, alice: User) -> None:
    remember(alice, 3, Role.USER, "Bees are back.")
    remember(alice, 20, Role.ASSISTANT, "Bees like linden trees.")
    passage = Passage.objects.create(user=alice, reference="Judges 14", text="A swarm.")
    passage.messages.create(user=alice, role=Role.USER, content="Bees in a lion!")
    page.goto("/memory/?q=bees")
    expect(page.locator("#found h2")).to_have_text("3 found, best first")
    filters = [
        ("role", "assistant", "Bees like linden trees."),
        ("kind", "passage", "Bees in a lion!"),
    ]
    for name, value, text in filters:
        page.locator(f"select[name={name}]").select_option(value)
        search(page, text)
        page.locator(f"select[name={name}]").select_option("")
    page.get_by_label("Since").fill("2026-10-03")
    page.get_by_label("Until").fill("2026-10-03")
    search(page, "Bees are back.")


def search(page: Page, text: str) -> None:
    """Search, and wait until this text alone is found."""
    page.get_by_role("button", name="Search").click()
    expect(page.locator("#found blockquote")).to_have_text([text])


@pytest.mark.soak
def test_a_whole_conversation_is_deleted_from_the_memory_page(page: Page, alice: User) -> None:
    ask(page, "My bees live in Graz.")
    page.locator("h1").click()
    page.keyboard.press("/")
    page.keyboard.type("bees")
    page.keyboard.press("Enter")
    expect(page.locator(".memory").first).to_be_visible()
    page.get_by_role("button", name="Delete conversation").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
    assert StandaloneChat.objects.count() == 1
    page.get_by_role("button", name="Delete conversation").first.click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page.get_by_text("Nothing found")).to_be_visible()
    expect(page.locator("#memory-state")).to_contain_text("0 messages")
    assert not StandaloneChat.objects.exists()
    page.locator("h1").click()
    page.keyboard.press("/")
    expect(page.get_by_role("searchbox", name="Search")).to_be_focused()


@pytest.mark.soak
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"EMBEDDINGS": "none"}, "Memory finds words only"),
        ({"RAG_ENABLED": "false"}, "Memory is off on this server"),
        ({}, " of 42 messages."),
    ],
    ids=["by words", "off", "partly embedded"],
)
def test_the_state_of_memory_is_told_on_both_pages(
    settings: dict[str, str],
    words: str,
    server: Callable[..., Server],
    openai_server: FakeOpenAI,
    new_page: Callable[..., Page],
    alice: User,
) -> None:
    memory = {"OPENAI_API_KEY": "sk-test", "OPENAI_BASE_URL": openai_server.base_url}
    page = new_page(base_url=server(**memory | settings).url)
    sign_in(page)
    ask(page, "Hello")
    for number in range(40):
        remember(alice, 1, Role.USER, f"Message {number}")
    page.reload()
    expect(page.locator("#memory-state")).to_contain_text(words)
    page.goto("/memory/")
    expect(page.locator("#memory-state")).to_contain_text(words)
