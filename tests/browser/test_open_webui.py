"""One conversation in Open WebUI and on our page: each shows each message once, in order."""

from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Browser, Page, expect

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.browser import open_webui
from tests.browser.conftest import ask
from tests.browser.open_webui import OpenWebUI
from tests.support import Server

pytestmark = [
    pytest.mark.django_db(transaction=True),
    pytest.mark.soak,
    pytest.mark.skipif(not open_webui.COMMAND, reason="OPEN_WEBUI names no command"),
]
FIRST, SECOND = "My zebra Kornblume lives in Trieste.", "She eats thistles."
OURS, THIRD = "She is afraid of trams.", "What is she called?"


def turns(*questions: str) -> list[str]:
    """The questions with the usual answers of the fake model."""
    return [text for question in questions for text in (question, f"You said: {question}")]


def check_page(page: Page, chat: int, messages: list[str]) -> None:
    """Our page of this chat shows these messages and no others."""
    page.goto(f"/chats/{chat}/")
    expect(page.locator(".message .content")).to_have_text(messages)


def newest_chat() -> int:
    return StandaloneChat.objects.latest("pk").pk


def test_a_conversation_of_open_webui_goes_on_on_our_page_and_back(
    page: Page,
    browser: Browser,
    site: Server,
    alice: User,
    openai_server: FakeOpenAI,
    tmp_path: Path,
) -> None:
    key = create_token(alice)[1]
    with open_webui.serving(tmp_path, f"{site.url}/v1", key) as url:
        client = OpenWebUI(browser, url)
        for text in (FIRST, SECOND):
            client.say(text, f"You said: {text}")
        chat = newest_chat()
        check_page(page, chat, turns(FIRST, SECOND))
        ask(page, OURS)
        check_page(page, chat, turns(FIRST, SECOND, OURS))
        client.say(THIRD, f"You said: {THIRD}")
        check_page(page, chat, turns(FIRST, SECOND, OURS))
        branch = newest_chat()
        check_page(page, branch, turns(FIRST, SECOND, THIRD))
        assert OURS in prompts_with(openai_server, THIRD)[-1]
        openai_server.chat.default = Answer("Kornblume.")
        client.regenerate("Kornblume.")
        check_page(page, branch, [*turns(FIRST, SECOND), THIRD, "Kornblume."])
        client.edit_first("My zebra lives in Graz.", "Kornblume.")
        check_page(page, newest_chat(), ["My zebra lives in Graz.", "Kornblume."])
        check_page(page, branch, [*turns(FIRST, SECOND), THIRD, "Kornblume."])
    assert StandaloneChat.objects.count() == 3
    assert not StandaloneChatMessage.objects.filter(content__contains="### Task").exists()


def prompts_with(fake: FakeOpenAI, question: str) -> list[str]:
    """The last user message, with its memories, of each request that asks this."""
    requests = [request for request in fake.chat.requests if request.last_user_text == question]
    return [request.messages[-1]["content"] for request in requests]
