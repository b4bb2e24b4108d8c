"""Five users chat at once with two processes: no answer and no prompt holds another's words."""

import re
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from fake_openai import FakeOpenAI
from tests.support import Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
NAMES = ("ada", "ben", "cleo", "dora", "emil")
CANARY = re.compile(r"canary(\w+?)x\d+")
TURNS = 12


def talk(server: Server, name: str, token: str) -> str:
    """All that one user is shown: turns in chats and about passages, searches, lists, export."""
    shown = []
    client = server.client(token, Connection="close")  # each request to either process
    for number in range(TURNS):
        kind = ("chats", "passages")[number % 2]
        named = {
            "title": f"canary{name}x{number}",
            "reference": f"canary{name}x{number}",
            "text": "The bread.",
        }
        conversation = client.post(f"/api/{kind}/", json=named).json()["id"]
        message = {
            "content": f"The dog and the bread are called canary{name}x{number}."
            " What is the dog called?"
        }
        turn = client.post(f"/api/{kind}/{conversation}/messages/", json=message)
        assert turn.status_code == 201, turn.text
        result = client.get(
            "/api/memory/search/", params={"q": "dog bread called canary", "limit": 50}
        )
        shown += [turn.text, result.text, client.get(f"/api/{kind}/").text]
    return "".join([*shown, client.get("/api/memory/export/").text])


def test_no_user_is_shown_another_users_words(
    transactional_db: None, server: Callable[..., Server], openai_server: FakeOpenAI
) -> None:
    tokens = {name: create_token(User.objects.create(username=name))[1] for name in NAMES}
    values = {
        "OPENAI_BASE_URL": openai_server.base_url,
        "OPENAI_API_KEY": "sk-test",
        "WEB_CONCURRENCY": "2",
    }
    running = server(**values, THROTTLE_MESSAGES="off")
    with ThreadPoolExecutor(len(NAMES)) as people:
        shown = dict(
            zip(
                NAMES,
                people.map(lambda name: talk(running, name, tokens[name]), NAMES),
                strict=True,
            )
        )
    for name, text in shown.items():
        assert set(CANARY.findall(text)) == {name}
        assert text.count('"score"') > TURNS
    prompts = [set(CANARY.findall(request.prompt_text)) for request in openai_server.chat.requests]
    assert len(prompts) == TURNS * len(NAMES)
    assert all(len(names) == 1 for names in prompts)
    assert sum(
        "===== memories" in request.prompt_text for request in openai_server.chat.requests
    ) > len(NAMES)
    assert "ERROR" not in running.log
