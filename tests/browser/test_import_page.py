"""A person brings an export, sees what came, and removes it again."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import StandaloneChatMessage
from chat.tests.product_exports import as_json, talk, write
from tests.browser.conftest import sign_in
from tests.browser.test_accessibility import AXE, NARROW, violations

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.newest_schema
def test_an_export_is_imported_and_removed(
    new_page: Callable[..., Page], alice: User, tmp_path: Path
) -> None:
    """Of more than a megabyte: only a known user's session may send so much."""
    page = new_page()
    page.add_init_script(AXE.read_text())
    sign_in(page)
    content = as_json(talk("1", "I keep bees in Graz.", "x" * 1_500_000, title="Bees"))
    page.get_by_role("link", name="Memory").click()
    page.get_by_label("File").set_input_files(write(tmp_path / "conversations.json", content))
    page.get_by_role("button", name="Import").click()
    page.get_by_role("heading", name="Bring your history").wait_for()
    while page.get_by_role("link", name="Look again").count():
        page.get_by_role("link", name="Look again").click()
    expect(page.get_by_text("2 messages in 1 conversations were added.")).to_be_visible()
    assert violations(page) == []
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    assert StandaloneChatMessage.objects.count() == 2
    page.get_by_role("button", name="Remove").click()
    expect(page.get_by_text("None yet.")).to_be_visible()
    assert not StandaloneChatMessage.objects.exists()
