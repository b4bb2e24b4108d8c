"""Open WebUI in a process of its own, and what a person does in it.

It is large and is not installed by the tests: OPEN_WEBUI names its command, such as
/srv/open-webui/bin/open-webui.
"""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import httpx2
from playwright.sync_api import Browser, Page, expect

from tests.support import PATIENCE_S, clean_environment, free_port, wait_for

COMMAND = os.environ.get("OPEN_WEBUI", "")
START_S = 4 * PATIENCE_S  # it imports PyTorch
PERSON = {"name": "Ann", "email": "ann@example.org", "password": "pass-word-1"}


@contextlib.contextmanager
def serving(folder: Path, base_url: str, key: str) -> Iterator[str]:
    """The URL of an Open WebUI without users, set up as docs/clients/open-webui.md says."""
    url = f"http://127.0.0.1:{free_port()}"
    environment = clean_environment(
        OPENAI_API_BASE_URL=base_url,
        OPENAI_API_KEY=key,
        ENABLE_FORWARD_USER_INFO_HEADERS="true",
        ENABLE_OLLAMA_API="false",
        DEFAULT_MODELS="verse",
        DATA_DIR=str(folder),
        WEBUI_SECRET_KEY="test",
        OFFLINE_MODE="true",
        HF_HUB_OFFLINE="1",
        RAG_EMBEDDING_ENGINE="openai",  # not the model that it would load
    )
    command = [COMMAND, "serve", "--host", "127.0.0.1", "--port", url.rpartition(":")[2]]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    try:
        wait_for(lambda: answers(f"{url}/health"), START_S)
        yield url
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait(PATIENCE_S)


def answers(url: str) -> bool:
    """Whether a server is there."""
    try:
        return httpx2.get(url, trust_env=False).is_success
    except httpx2.TransportError:
        return False


class OpenWebUI:
    """One page of it, signed in; its chat is the last one that was begun."""

    def __init__(self, browser: Browser, url: str) -> None:
        context = browser.new_context(base_url=url, viewport={"width": 1280, "height": 800})
        self.page: Page = context.new_page()
        self.page.set_default_timeout(PATIENCE_S * 1000)
        signed_up = self.page.request.post("/api/v1/auths/signup", data=PERSON)
        self.page.goto("/auth")
        token = signed_up.json()["token"]
        self.page.evaluate("token => localStorage.setItem('token', token)", token)
        self.page.goto("/?models=verse")
        self.page.get_by_role("button", name="Okay, Let's Go!").click()  # what is new

    def say(self, text: str, answer: str) -> None:
        """Send a message and wait for its answer's end."""
        self.page.locator("#chat-input").click()
        self.page.keyboard.type(text)
        self.page.keyboard.press("Enter")
        self.wait_for_answer(answer)

    def regenerate(self, answer: str) -> None:
        """The last answer again."""
        self.page.get_by_role("button", name="Regenerate").last.click()
        self.page.get_by_text("Try Again").click()
        self.wait_for_answer(answer)

    def edit_first(self, text: str, answer: str) -> None:
        """Another first message, in the place of what was said."""
        self.page.locator("div.user-message").first.hover()
        self.page.get_by_role("button", name="Edit").first.click()
        self.page.locator("[id^=message-edit]").first.click()
        self.page.keyboard.press("Control+a")
        self.page.keyboard.type(text)
        self.page.locator("#confirm-edit-message-button").first.click()
        self.wait_for_answer(answer)

    def wait_for_answer(self, text: str) -> None:
        """The last answer has this text, and the buttons that an ended one has."""
        answer = self.page.locator("#response-content-container").last
        expect(answer).to_have_text(text, timeout=PATIENCE_S * 1000)
        expect(self.page.get_by_role("button", name="Regenerate").last).to_be_visible()
