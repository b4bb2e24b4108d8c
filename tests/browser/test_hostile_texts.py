"""Texts that try to run: in messages, titles, passages, memories and answers, nothing is executed.

The page fixture fails a test for each script error and each report of the Content-Security-Policy.
"""

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import Passage, Role, StandaloneChat, StandaloneChatMessage

pytestmark = pytest.mark.django_db(transaction=True)
RUN = "document.title='ran'"
HOSTILE = [
    f"<script>{RUN}</script>",
    f"<img src=x onerror={RUN}>",
    f"<svg onload={RUN}>",
    f"<svg><script>{RUN}</script></svg>",
    f'<a href="javascript:{RUN}">link</a>',
    f"[link](javascript:{RUN})",
    f"[link](JaVaScRiPt:{RUN})",
    f"[link](data:text/html,<script>{RUN}</script>)",
    f"[link](vbscript:{RUN})",
    f"[link]( javascript:{RUN})",
    f"[link][1]\n\n[1]: javascript:{RUN}",
    f"<javascript:{RUN}>",
    f'![image](x" onerror="{RUN})',
    "![image](https://example.com/pixel.png)",
    "![image](javascript:alert(1))",
    f'<iframe srcdoc="<script>parent.{RUN}</script>"></iframe>',
    "<iframe src=https://example.com></iframe>",
    f'<object data="javascript:{RUN}"></object>',
    f'<embed src="javascript:{RUN}">',
    "<style>body{display:none}</style>",
    '<p style="position:fixed;inset:0">over all</p>',
    "<link rel=stylesheet href=https://example.com/x.css>",
    '<meta http-equiv=refresh content="0;url=https://example.com">',
    "<base href=https://example.com/>",
    "<form action=https://example.com><input name=q><button>Go</button></form>",
    f"<details open ontoggle={RUN}>x</details>",
    f"<input autofocus onfocus={RUN}>",
    f"<body onload={RUN}>",
    f"<math><mtext><table><mglyph><style><img src=x onerror={RUN}>",
    f'<noscript><p title="</noscript><img src=x onerror={RUN}>">',
    f"<template><img src=x onerror={RUN}></template>",
    f"`<img src=x onerror={RUN}>`",
    f"```html\n<script>{RUN}</script>\n```",
    f'```"><img src=x onerror={RUN}>\ntext\n```',
    f"| <img src=x onerror={RUN}> |\n|---|\n| <script>{RUN}</script> |",
    f"# <img src=x onerror={RUN}>",
    f"> <svg/onload={RUN}>",
    f"1. <a onclick={RUN}>x</a>",
    f"</textarea><script>{RUN}</script>",
    f"{{{{constructor.constructor('{RUN}')()}}}}",
]


def fill(user: User) -> StandaloneChat:
    """A chat with each text as a message, an answer and a memory of it; titles and passages too."""
    chat = StandaloneChat.objects.create(user=user, title=HOSTILE[0])
    for text in HOSTILE:
        question, answer = (
            StandaloneChatMessage.objects.create(
                user=user, conversation=chat, role=role, content=text
            )
            for role in (Role.USER, Role.ASSISTANT)
        )
        StandaloneChat.objects.create(user=user, title=text[:200])
        Passage.objects.create(user=user, reference=text[:200], text=text)
        answer.context = [{"kind": "chat", "id": question.pk, "score": 1.0}]
        answer.save()
    return chat


@pytest.mark.newest_schema
def test_hostile_texts_are_shown_and_never_run(page: Page, alice: User) -> None:
    chat = fill(alice)
    page.goto(f"/chats/{chat.pk}/")
    expect(page.locator(".message")).to_have_count(50)
    page.locator("#thread").evaluate("thread => thread.scrollTo(0, 0)")  # loads earlier ones
    expect(page.locator(".message")).to_have_count(2 * len(HOSTILE))
    for card in page.locator("details.memories > summary").all():
        card.click()
    for link in page.locator(".content a").all():
        assert (link.get_attribute("href") or "https:").startswith(("https:", "http:", "mailto:"))
    assert page.locator("main :is(img, iframe, style, script, svg, object, embed)").count() == 0
    assert page.title() != "ran"
    passage = Passage.objects.of(alice)[0]
    page.goto(f"/passages/{passage.pk}/")
    expect(page.locator("#passage div")).to_have_text(passage.text)
    page.goto("/memory/")
    page.get_by_label("Search", exact=False).first.fill("script image link")
    page.keyboard.press("Enter")
    expect(page.locator(".memory").first).to_be_visible()
    assert page.title() != "ran"
