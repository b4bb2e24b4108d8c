"""The API's page and the admin work under the Content-Security-Policy."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import StandaloneChat
from tests.browser.conftest import sign_in

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.mark.soak
def test_the_api_page_and_the_admin_work(new_page: Callable[..., Page], alice: User) -> None:
    User.objects.filter(pk=alice.pk).update(is_staff=True, is_superuser=True)
    chat = StandaloneChat.objects.create(user=alice, title="Goats")
    message = chat.messages.create(user=alice, role="user", content="Three of them.")
    page = new_page()
    sign_in(page)
    page.get_by_role("link", name="API").click()
    expect(page.get_by_text("Make a token with a password")).to_be_visible()
    page.goto("/")
    page.get_by_role("link", name="Admin").click()
    page.get_by_role("link", name="Memory overview").click()
    expect(page.get_by_role("heading", name="Recall over time")).to_be_visible()
    page.goto("/admin/chat/standalonechatmessage/")
    expect(page.get_by_text("Three of them.")).to_be_visible()
    page.goto(f"/admin/chat/standalonechatmessage/{message.pk}/change/")
    expect(page.get_by_text("Three of them.")).to_be_visible()
    page.get_by_role("link", name="View site").click()
    expect(page.get_by_role("textbox", name="Message")).to_be_visible()
