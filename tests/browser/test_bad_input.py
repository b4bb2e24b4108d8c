"""What people and networks do to a chat: nothing is lost, and the layout stands."""

from collections.abc import Callable

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import Role, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.browser.conftest import ask, box, send, sign_in
from tests.browser.relay import Relay
from tests.support import Server

pytestmark = pytest.mark.django_db(transaction=True)
WORDS = [f"word{number}" for number in range(120)]
SLOW = Answer(" ".join(WORDS), tokens_per_s=10)
ENDLESS = Answer("word0 " * 1000, tokens_per_s=2)  # a test stops it
NARROW = {"width": 360, "height": 740}
HEBREW = "שלום לכולם, מה שלומכם היום?"
COLUMNS = "|".join(f" column {number} " for number in range(50))
ODD = [
    "x" * 5000,
    f"`{'y' * 5000}` and **{'z' * 5000}**",
    f"```\n{'code' * 1250}\n```",
    f"|{COLUMNS}|\n|{'---|' * 50}\n|{COLUMNS}|",
    f"# {'w' * 5000}\n\n- {'list' * 1250}\n\n> {'quote' * 1000}",
    f"{HEBREW}\n\n- {HEBREW}",
    "👩‍👩‍👧‍👦🏳️‍🌈 " * 500,
    "https://example.com/" + "path/" * 1000,
]


def last_answer(page: Page) -> str:
    return page.locator(".message.assistant .content").last.inner_text()


def wait_for_word(page: Page, number: int) -> None:
    expect(page.locator(".message.assistant .content").last).to_contain_text(f"word{number} ")


def fill(user: User, texts: list[str], title: str = "Odd") -> StandaloneChat:
    """A chat in which each text was said and answered."""
    chat = StandaloneChat.objects.create(user=user, title=title)
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(user=user, conversation=chat, role=role, content=text)
        for text in texts
        for role in (Role.USER, Role.ASSISTANT)
    )
    return chat


@pytest.mark.newest_schema
def test_odd_texts_keep_the_layout(page: Page, alice: User) -> None:
    chat = fill(alice, ODD, title="t" * 200)
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    page.goto(f"/chats/{chat.pk}/")
    expect(page.locator(".message")).to_have_count(2 * len(ODD))
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    thread = page.locator("#thread")
    assert thread.evaluate("thread => thread.scrollWidth - thread.clientWidth") == 0
    expect(page.get_by_role("region", name="Table")).to_have_count(1)
    for hebrew in page.get_by_text(HEBREW).all():
        assert hebrew.evaluate("element => getComputedStyle(element).direction") == "rtl"


@pytest.mark.soak
def test_an_answer_goes_on_after_the_session_ended(
    page: Page, openai_server: FakeOpenAI, alice: User
) -> None:
    openai_server.chat.default = SLOW
    send(page, "Count")
    wait_for_word(page, 3)
    page.context.clear_cookies()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    assert last_answer(page).split() == WORDS
    expect(page.locator("#memory-state")).to_contain_text("You are signed out")
    send(page, "More")
    expect(box(page)).to_have_value("More")
    page.locator("#trouble").get_by_role("link", name="Sign in").click()
    page.get_by_label("Username").fill("alice")
    page.get_by_label("Password").fill("alice's password")
    page.get_by_role("button", name="Sign in").click()
    expect(box(page)).to_have_value("More")
    assert last_answer(page).split() == WORDS


@pytest.mark.soak
def test_of_two_tabs_the_later_keeps_its_text_and_sees_the_answer(
    page: Page, openai_server: FakeOpenAI
) -> None:
    ask(page, "Hello")
    second = page.context.new_page()
    second.goto(page.url)
    expect(second.get_by_role("button", name="Regenerate")).to_be_visible()
    openai_server.chat.default = ENDLESS
    send(page, "First tab")
    wait_for_word(page, 0)
    send(second, "Second tab")
    expect(second.locator("#trouble")).to_contain_text("still running")
    expect(box(second)).to_have_value("Second tab")
    wait_for_word(second, 0)
    openai_server.chat.default = Answer("Done.")
    second.get_by_role("button", name="Stop").click()
    for tab in (page, second):
        expect(tab.get_by_text("stopped before its end")).to_be_visible()
    box(second).press("Enter")
    expect(second.locator(".message.assistant .content").last).to_have_text("Done.")


@pytest.mark.soak
def test_an_answer_survives_a_lost_connection(
    new_page: Callable[..., Page], site: Server, openai_server: FakeOpenAI, alice: User
) -> None:
    """All connections break in mid-answer, and no new one is possible for a while."""
    openai_server.chat.default = SLOW
    relay = Relay(site.port)
    page = new_page(base_url=relay.url)
    sign_in(page)
    send(page, "Count")
    wait_for_word(page, 3)
    relay.cut()
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    assert last_answer(page).split() == WORDS[: len(last_answer(page).split())]
    relay.restore()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    expect(page.locator(".note:visible")).to_have_count(0)
    assert last_answer(page).split() == WORDS
    relay.close()


@pytest.mark.soak
def test_another_conversation_does_not_get_the_words_of_an_answer(
    page: Page, openai_server: FakeOpenAI, alice: User
) -> None:
    other = fill(alice, ["Something else"], title="Other")
    page.reload()
    openai_server.chat.default = SLOW
    send(page, "Count")
    wait_for_word(page, 2)
    counted = page.url
    page.get_by_role("link", name="Other").click()
    expect(page.locator(".message")).to_have_count(2)
    expect(page.get_by_role("button", name="Stop")).to_be_hidden()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    page.go_back()
    wait_for_word(page, 5)
    expect(page.get_by_role("button", name="Stop")).to_be_visible()
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()
    assert page.url == counted
    assert last_answer(page).split() == WORDS
    assert other.messages.count() == 2


@pytest.mark.soak
def test_a_long_conversation_is_loaded_as_one_scrolls_to_its_beginning(
    page: Page, alice: User
) -> None:
    chat = fill(alice, [f"Message number {number}." for number in range(100)], title="Long")
    first, third = chat.messages.order_by("pk")[0:3:2]
    page.goto(f"/chats/{chat.pk}/")
    expect(page.locator(".message")).to_have_count(50)
    page.locator("#thread").hover()
    for _ in range(20):
        page.mouse.wheel(0, -1500)
    expect(page.locator(".message")).to_have_count(200)
    page.goto("/")
    page.goto(f"/chats/{chat.pk}/#message-{third.pk}")
    expect(page.locator(".found")).to_contain_text("Message number 1.")
    expect(page.locator(".found")).to_be_in_viewport()
    expect(page.locator(f"#message-{first.pk}")).to_be_attached()
    expect(page.locator(".message")).to_have_count(200)
