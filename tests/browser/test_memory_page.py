"""The memory page: the search that answers use, forget, edit, export, erase."""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import StandaloneChat, StandaloneChatMessage
from tests.browser.conftest import ask

pytestmark = pytest.mark.django_db(transaction=True)


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
