"""axe finds nothing on any page, light and dark; nothing is wider than a small screen."""

from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User
from playwright.sync_api import Page, expect

from chat.models import Passage
from fake_openai import Answer, FakeOpenAI
from tests.browser.conftest import ask, new_conversation, open_card, sign_in

pytestmark = pytest.mark.django_db(transaction=True)
AXE = Path(__file__).parent / "vendor" / "axe.js"
TAGS = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22a", "wcag22aa"]
NARROW = {"width": 360, "height": 740}
FACT = "I keep bees in Graz."
RICH = """# Bees

Some *text*, `code`, a [link](https://example.com) and an image: ![a bee](https://example.com/b.png)

| hive | honey |
|---|---|
| 1 | 12 kg |

```python
def bees():  # many
    return 60_000 + len("queen")
```

- [x] fed
- [ ] counted
"""


def violations(page: Page) -> list[str]:
    """What axe finds, each with the first element."""
    result = page.evaluate(
        "(tags) => axe.run(document, {runOnly: {type: 'tag', values: tags}})", TAGS
    )
    return [f"{fault['id']}: {fault['nodes'][0]['html']}" for fault in result["violations"]]


@pytest.mark.newest_schema
@pytest.mark.parametrize("scheme", ["light", pytest.param("dark", marks=pytest.mark.soak)])
def test_axe_finds_nothing(
    scheme: str, new_page: Callable[..., Page], alice: User, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(RICH)
    page = new_page(color_scheme=scheme)
    page.add_init_script(AXE.read_text())
    page.goto("/")
    faults = {"sign in": violations(page)}
    sign_in(page)
    faults["empty"] = violations(page)
    ask(page, FACT)
    new_conversation(page)
    ask(page, "What do I keep in Graz?")
    open_card(page, FACT)
    faults["chat"] = violations(page)
    page.set_viewport_size(NARROW)  # type: ignore[arg-type]
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    page.get_by_role("button", name="Menu").click()
    faults["narrow, with the menu"] = violations(page)
    page.keyboard.press("Escape")
    page.get_by_role("button", name="Delete").click()
    faults["dialog"] = violations(page)
    passage = Passage.objects.create(user=alice, reference="Ruth 1", text="Whither thou goest")
    page.goto(f"/passages/{passage.pk}/")
    expect(page.get_by_text("Whither thou goest")).to_be_visible()
    faults["passage"] = violations(page)
    page.goto("/memory/")
    page.get_by_role("searchbox", name="Search").fill("bees")
    page.keyboard.press("Enter")
    expect(page.locator(".memory").first).to_be_visible()
    assert page.evaluate("document.documentElement.scrollWidth") <= NARROW["width"]
    faults["memory"] = violations(page)
    assert {place: what for place, what in faults.items() if what} == {}
