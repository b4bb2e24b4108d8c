"""Measures the chat page in a real Chromium, against a server with two workers on loopback.

    .venv/bin/python -m benchmarks.pages [--loads 20] [--json FILE]

First paint with 500 conversations, the size of our own JavaScript, the time from a word's arrival
in the browser until it is painted, when the text goes on after a reload in mid-answer, and the
frames while one scrolls through 3,000 messages. About a minute; needs Chromium.
"""

import argparse
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
os.environ["DJANGO_ALLOW_ASYNC_UNSAFE"] = "1"  # Playwright has an event loop in this thread
django.setup()

import numpy as np
from django.contrib.auth.models import User
from playwright.sync_api import Page, sync_playwright

from benchmarks import results
from benchmarks.stage import scratch_database, serving
from chat.models import Role, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.browser import chromium
from tests.support import ROOT, Server

CONVERSATIONS = 500
MESSAGES = 3_000
TOKENS_PER_S = 25.0
STEP_PX = 120  # a frame: 7,200 px a second at 60 frames
FRAME_MS = 1000 / 60
PROBE = (Path(__file__).parent / "page_probe.js").read_text()
SCRIPTS = ROOT / "chat" / "pages" / "static" / "pages"
PAINT = "performance.getEntriesByName('first-contentful-paint')[0].startTime"
LISTED = "document.querySelectorAll('nav li a').length"
MARKDOWN = """Some *text* with `code` number {number}, and a list:

- one, and a [link](https://example.com)
- two

```python
def bees(hives: int) -> int:
    return 60_000 * hives
```
"""


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--loads", type=int, default=20)
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    figures = run(options.loads)
    print("| what | p50 | p95 | longest | target |\n|---|---|---|---|---|")
    for name, (values, target) in figures.items():
        p50, p95 = np.percentile(values, (50, 95))
        print(f"| {name} | {p50:.0f} | {p95:.0f} | {max(values):.0f} | {target} |")
    if options.json:
        lines = {
            name: [round(value, 1) for value in values] for name, (values, _) in figures.items()
        }
        results.write({"figures": lines}, options.json)


def run(loads: int) -> dict[str, tuple[list[float], str]]:
    """The measured values of each line, and its target."""
    with scratch_database() as database, FakeOpenAI() as fake:
        user = User.objects.create_user("reader", password="reader")
        long_chat = fill(user)
        answer = " ".join(f"word{number}" for number in range(200))
        fake.chat.default = Answer(answer, tokens_per_s=TOKENS_PER_S)
        with (
            serving(database, fake.base_url, EMBEDDINGS="none") as server,
            reading(server) as page,
        ):
            painted = first_paints(page, loads)
            delays, rejoined = words(page)
            up, down = scrolling(page, long_chat)
    size = sum(path.stat().st_size for path in SCRIPTS.glob("*.js"))
    return {
        f"first paint, {CONVERSATIONS} conversations, ms": (painted, "under 300"),
        "our own JavaScript, bytes": ([size], "under 40,000"),
        "from a word's arrival to the screen, ms": (delays, "under 50"),
        "text goes on after a reload in mid-answer, ms": (rejoined, "under 500"),
        f"a frame, scrolling up while {MESSAGES:,} messages load, ms": (up, ""),
        f"a frame, scrolling down through {MESSAGES:,} messages, ms": (down, ""),
    }


def fill(user: User) -> int:
    """Empty conversations, and the long one. Returns its id."""
    StandaloneChat.objects.bulk_create(
        StandaloneChat(user=user, title=f"Conversation {number}") for number in range(CONVERSATIONS)
    )
    chat = StandaloneChat.objects.create(user=user, title="The long one")
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(
            user=user,
            conversation=chat,
            role=Role.ASSISTANT if number % 2 else Role.USER,
            content=MARKDOWN.format(number=number) if number % 2 else f"Question {number}?",
        )
        for number in range(MESSAGES)
    )
    return chat.pk


@contextmanager
def reading(server: Server) -> Iterator[Page]:
    """A page that is signed in, in a browser of its own."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(
            executable_path=chromium.find(), args=list(chromium.OPTIONS)
        )
        # The policy forbids eval, by which Playwright waits for a condition.
        page = browser.new_context(base_url=server.url, bypass_csp=True).new_page()
        page.add_init_script(PROBE)
        page.goto("/accounts/login/")
        page.get_by_label("Username").fill("reader")
        page.get_by_label("Password").fill("reader")
        page.get_by_role("button", name="Sign in").click()
        page.get_by_role("textbox", name="Message").wait_for()
        yield page
        browser.close()


def first_paints(page: Page, loads: int) -> list[float]:
    """From the navigation's start to the first painted text."""
    painted = []
    for _ in range(loads):
        page.goto("/")
        page.wait_for_function(f"{LISTED} >= 50")
        painted.append(page.evaluate(PAINT))
    return painted


def words(page: Page) -> tuple[list[float], list[float]]:
    """Each word's way from the network to the screen; after reloads, when the text grows again."""
    page.goto("/")
    box = page.get_by_role("textbox", name="Message")
    box.fill("Count")
    box.press("Enter")
    page.wait_for_function("probe.shown.length >= 60")
    delays = _delays(page.evaluate("probe"))
    rejoined = []
    for _ in range(3):
        page.reload()
        page.wait_for_function("probe.shown.length >= 3")
        rejoined.append(page.evaluate("probe.shown[1]"))
        page.wait_for_timeout(500)
    page.get_by_role("button", name="Regenerate").wait_for()
    return delays, rejoined


def _delays(probe: Any) -> list[float]:
    """From each arrival to the next time that something was shown."""
    shown = np.array(probe["shown"])
    arrived = np.array([time for time in probe["arrived"] if time < shown[-1]])
    return list(map(float, shown[np.searchsorted(shown, arrived)] - arrived))


def scrolling(page: Page, chat: int) -> tuple[list[float], list[float]]:
    """The times between frames, up to the first message and back to the end."""
    page.goto(f"/chats/{chat}/")
    page.locator(".message").nth(49).wait_for()
    up = page.evaluate("step => scrollToBeginning(step)", STEP_PX)
    down = page.evaluate("step => scrollToEnd(step)", 10 * STEP_PX)
    assert page.locator(".message").count() == MESSAGES
    return up, down


if __name__ == "__main__":
    main()
