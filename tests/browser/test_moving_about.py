"""Moving between conversations: each shows its own messages, also on a slow or broken network."""

from collections.abc import Callable, Iterator

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import StandaloneChat
from tests.browser.conftest import box, sign_in
from tests.browser.relay import Relay
from tests.support import Server

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def chats(alice: User) -> None:
    """Two conversations, Cats and Dogs, with a message each."""
    for title in ("Cats", "Dogs"):
        chat = StandaloneChat.objects.create(user=alice, title=title)
        chat.messages.create(user=alice, role="user", content=f"I like {title.lower()}")


@pytest.fixture
def relay(site: Server) -> Iterator[Relay]:
    relay = Relay(site.port)
    yield relay
    relay.close()


def go_to(page: Page, title: str) -> None:
    page.get_by_role("navigation").get_by_role("link", name=title).click()


def test_what_comes_late_is_not_shown_in_another_conversation(
    new_page: Callable[..., Page], relay: Relay
) -> None:
    page = new_page(base_url=relay.url)
    sign_in(page)
    relay.held = b'"content":"I like cats'
    with page.expect_response("**/messages/?newest=1*"):
        go_to(page, "Cats")
    go_to(page, "Dogs")
    expect(page.locator(".message .content")).to_have_text("I like dogs")
    with page.expect_event("requestfinished"):
        relay.released.set()
    page.wait_for_timeout(200)
    expect(page.locator(".message .content")).to_have_text("I like dogs")


def test_a_dialog_closes_with_its_conversation(page: Page) -> None:
    page.reload()
    go_to(page, "Cats")
    expect(page.locator("#title")).to_have_text("Cats")
    go_to(page, "Dogs")
    expect(page.locator("#title")).to_have_text("Dogs")
    page.get_by_role("button", name="Rename").click()
    page.get_by_role("dialog").wait_for()
    page.go_back()
    expect(page.locator("#title")).to_have_text("Cats")
    expect(page.get_by_role("dialog")).to_have_count(0)


def test_a_conversation_that_could_not_be_loaded_opens_again(page: Page) -> None:
    page.reload()
    page.route("**/messages/?newest=1*", lambda route: route.abort())
    go_to(page, "Cats")
    expect(page.locator("#trouble")).to_contain_text("There is no connection")
    page.unroute("**/messages/?newest=1*")
    go_to(page, "Cats")
    expect(page.locator(".message .content")).to_have_text("I like cats")
    expect(page.locator("#title")).to_have_text("Cats")
    expect(page.locator("#trouble")).to_be_hidden()


def test_an_enter_that_ends_a_conversion_sends_nothing(page: Page) -> None:
    box(page).fill("にほん")
    # As Safari sends it: after the conversion, so that isComposing is false.
    event = {"key": "Enter", "keyCode": 229, "bubbles": True, "cancelable": True}
    box(page).dispatch_event("keydown", event)
    expect(box(page)).to_have_value("にほん")
    expect(page.locator(".message")).to_have_count(0)
