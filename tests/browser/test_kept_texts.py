"""What one types is kept until it is stored, once, and no longer than that."""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, Route, expect

from chat.models import Passage, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, CutAfter, FakeOpenAI
from tests.browser.conftest import ask, box, new_conversation, send

pytestmark = pytest.mark.django_db(transaction=True)
SLOW = Answer("so many words " * 8, tokens_per_s=15)
SENT = "Object.keys(localStorage).filter((key) => key.includes('/sent/'))"


def finished(page: Page) -> None:
    expect(page.get_by_role("button", name="Regenerate")).to_be_visible()


def forget_first(page: Page) -> None:
    page.locator(".message.user").first.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(page.locator(".message.user")).to_have_count(0)


def test_a_message_left_in_mid_answer_is_not_offered_again(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = SLOW
    send(page, "My secret is out")
    expect(page.locator(".message.assistant .content")).to_contain_text("words")
    page.reload()
    finished(page)
    page.reload()
    finished(page)
    assert page.evaluate(SENT) == []
    forget_first(page)
    expect(page.locator("#title")).not_to_contain_text("secret")
    expect(page.locator("#conversations")).not_to_contain_text("secret")
    page.reload()
    expect(page.locator(".message.assistant")).to_be_visible()
    expect(page.locator("#thread")).not_to_contain_text("secret")
    assert StandaloneChatMessage.objects.filter(role="user").count() == 0


def test_a_message_that_was_not_sent_goes_back_to_the_box(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Yes.")
    ask(page, "Are you there?")
    page.route("**/messages/", lambda route: route.abort())
    send(page, "The first")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.unroute("**/messages/")
    send(page, "The second")
    expect(page.locator(".message.user").last).to_contain_text("The second")
    finished(page)
    expect(box(page)).to_have_value("The first")
    page.reload()
    finished(page)
    expect(box(page)).to_have_value("The first")
    page.get_by_role("button", name="Send").click()
    expect(page.locator(".message.user").last).to_contain_text("The first")
    finished(page)
    texts = StandaloneChatMessage.objects.filter(role="user").order_by("pk")
    assert [message.content for message in texts] == ["Are you there?", "The second", "The first"]


def test_a_message_whose_answer_was_lost_is_not_sent_again(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Yes.")
    ask(page, "Are you there?")

    def lose_response(route: Route) -> None:
        route.fetch()
        route.abort()

    page.route("**/messages/", lose_response)
    send(page, "The first")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.unroute("**/messages/")
    send(page, "The second")
    expect(page.locator(".message.user").last).to_contain_text("The second")
    finished(page)
    expect(box(page)).to_have_value("")
    expect(page.locator(".message.user").nth(1)).to_contain_text("The first")
    expect(page.locator(".message.assistant .content").nth(1)).to_have_text("Yes.")
    texts = StandaloneChatMessage.objects.filter(role="user").order_by("pk")
    assert [message.content for message in texts] == ["Are you there?", "The first", "The second"]


def test_the_same_words_again_go_back_to_the_box_if_not_sent(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Fine.")
    ask(page, "Shall I?")
    ask(page, "yes")
    page.locator(".message.assistant").last.get_by_role("button", name="Forget").click()
    page.get_by_role("dialog").get_by_role("button", name="Forget").click()
    expect(page.locator(".message.assistant")).to_have_count(1)
    page.route("**/messages/", lambda route: route.abort())
    send(page, "yes")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.unroute("**/messages/")
    send(page, "Again")
    expect(page.locator(".message.user").last).to_contain_text("Again")
    expect(box(page)).to_have_value("yes")


def test_the_same_words_again_are_offered_if_not_sent(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Fine.")
    ask(page, "yes")
    page.route("**/messages/", lambda route: route.abort())
    send(page, "yes")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    page.unroute("**/messages/")
    page.reload()
    expect(page.locator(".note:visible")).to_contain_text("may not have been sent")
    page.get_by_role("button", name="Try again").click()
    expect(page.locator(".message.user")).to_have_count(2)
    finished(page)
    assert StandaloneChatMessage.objects.filter(role="user", content="yes").count() == 2


def test_what_was_sent_from_here_and_followed_elsewhere_is_not_offered_again(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = SLOW
    send(page, "From here")
    expect(page.locator(".message.assistant .content")).to_contain_text("words")
    address, cookies = page.url, page.context.cookies()
    page.goto("about:blank")
    elsewhere = page.context.browser.new_context(base_url=address)  # type: ignore[union-attr]
    elsewhere.add_cookies(cookies)  # type: ignore[arg-type]
    other = elsewhere.new_page()
    other.goto(address)
    finished(other)
    openai_server.chat.default = Answer("Yes.")
    ask(other, "And from there")
    elsewhere.close()
    page.goto(address)
    finished(page)
    expect(page.locator(".message.user").last).to_contain_text("And from there")
    assert page.evaluate(SENT) == []


def test_what_was_sent_is_forgotten_with_its_message(page: Page, openai_server: FakeOpenAI) -> None:
    openai_server.chat.default = CutAfter("Half an ")
    send(page, "My secret is out")
    expect(page.get_by_role("button", name="Try again")).to_be_visible()
    assert len(page.evaluate(SENT)) == 1
    forget_first(page)
    assert page.evaluate(SENT) == []


def test_a_refused_passage_or_edit_stays_in_its_dialog(
    page: Page, openai_server: FakeOpenAI
) -> None:
    dialog = page.get_by_role("dialog")
    page.get_by_role("button", name="New passage").click()
    dialog.get_by_label("Reference").fill("Ruth 1")
    dialog.get_by_label("Text").fill("x" * 33_000)
    dialog.get_by_role("button", name="Begin").click()
    expect(dialog.get_by_role("alert")).to_contain_text("32")
    expect(dialog.get_by_label("Text")).to_have_value("x" * 33_000)
    dialog.get_by_label("Text").fill("In the days when the judges ruled")
    dialog.get_by_role("button", name="Begin").click()
    expect(page.locator("#title")).to_have_text("Ruth 1")
    assert Passage.objects.count() == 1
    openai_server.chat.default = Answer("Yes.")
    ask(page, "Who was Ruth?")
    page.get_by_role("button", name="Edit").click()
    dialog.get_by_label("Message").fill("y" * 33_000)
    dialog.get_by_role("button", name="Save", exact=True).click()
    expect(dialog.get_by_role("alert")).to_contain_text("32")
    expect(dialog.get_by_label("Message")).to_have_value("y" * 33_000)
    dialog.get_by_role("button", name="Cancel").click()
    expect(page.locator(".message.user")).to_contain_text("Who was Ruth?")


def test_a_slow_new_conversation_takes_no_other_draft(page: Page, alice: User) -> None:
    other = StandaloneChat.objects.create(user=alice, title="The other one")
    page.reload()
    waiting: list[Route] = []

    def wait(route: Route) -> None:
        waiting.append(route)

    page.route("**/api/chats/", wait)
    send(page, "Hello from the start")
    page.get_by_role("link", name="The other one").click()
    expect(page.locator("#title")).to_have_text("The other one")
    box(page).fill("A draft here")
    for route in waiting:
        route.continue_()
    expect(page.get_by_role("link", name="Hello from the start")).to_be_visible()
    expect(box(page)).to_have_value("A draft here")
    assert page.url.endswith(f"/chats/{other.pk}/")
    page.get_by_role("link", name="Hello from the start").click()
    expect(box(page)).to_have_value("Hello from the start")


def test_an_answer_lost_elsewhere_leaves_the_open_conversation_alone(
    page: Page, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer("Here.")
    ask(page, "The first conversation")
    first = page.url.split("/")[-2]
    page.route(f"**/api/chats/{first}/messages/?newest=1*", lambda route: route.abort())
    openai_server.chat.default = CutAfter("Half an ")
    send(page, "Lost")
    expect(page.locator(".note:visible")).to_contain_text("There is no connection")
    new_conversation(page)
    openai_server.chat.default = Answer("so many words " * 30, tokens_per_s=15)
    send(page, "The second conversation")
    page.wait_for_timeout(2_500)  # the first one would have looked again
    assert [key for key in page.evaluate(SENT) if not key.endswith(f"/{first}/")]
    expect(page.locator(".message.assistant[aria-busy=true]")).to_be_visible()
