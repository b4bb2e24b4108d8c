"""What only a real server shows: clients that leave or read slowly, large bodies, two processes."""

import json
import threading
import time
from collections.abc import Callable
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage, Status
from chat.openai_api.tests.support import assistant, stored, texts, user
from fake_openai import Answer, Big, FakeOpenAI, HangAfter
from tests.support import PATIENCE_S, Server

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
ADDRESS = "/v1/chat/completions"


@pytest.fixture
def http(verse: Server, alice: User) -> httpx2.Client:
    """Alice's connection."""
    return verse.client(Authorization=f"Bearer {create_token(alice)[1]}")


def body(*messages: Any, **more: Any) -> dict[str, Any]:
    return {"model": "verse", "messages": list(messages)} | more


def wait_until(condition: Callable[[], bool]) -> None:
    until = time.monotonic() + PATIENCE_S
    while not condition():
        assert time.monotonic() < until
        time.sleep(0.02)


def test_a_client_that_leaves_changes_nothing(
    http: httpx2.Client, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.script(Answer("One two three four.", first_token_s=0.1, tokens_per_s=20))
    with http.stream("POST", ADDRESS, json=body(user("Count"), stream=True)) as response:
        next(response.iter_bytes())
    wait_until(lambda: texts()[-1:] == ["One two three four."])
    shown = http.post(ADDRESS, json=body(user("Count"), assistant("One t"), user("More")))
    assert shown.json()["choices"][0]["message"]["content"] == "You said: More"
    assert StandaloneChat.objects.count() == 1


def test_a_slow_reader_gets_the_whole_answer(
    http: httpx2.Client, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.script(Big(300_000))
    size = 0
    with http.stream("POST", ADDRESS, json=body(user("Tell"), stream=True)) as response:
        for number, chunk in enumerate(response.iter_bytes(1)):
            size += len(chunk)
            if number < 20:
                time.sleep(0.02)
    assert size > 300_000
    assert len(texts()[-1]) == 300_000


@pytest.mark.parametrize("is_chunked", [False, True])
def test_a_body_over_20_mb_is_413(is_chunked: bool, http: httpx2.Client) -> None:
    padding = "x" * (20_000_001 - len(json.dumps(body(user("")))))
    raw = json.dumps(body(user(padding))).encode()
    assert len(raw) == 20_000_001
    pieces = (raw[at : at + 1_000_000] for at in range(0, len(raw), 1_000_000))
    headers = {"Content-Type": "application/json"}
    response = http.post(ADDRESS, content=pieces if is_chunked else raw, headers=headers)
    assert (response.status_code, response.json()["error"]["code"]) == (413, "too_large")
    smaller = json.dumps(body(user(padding[1:]))).encode()
    fits = http.post(ADDRESS, content=smaller, headers=headers)
    assert (fits.status_code, fits.json()["error"]["code"]) == (400, "invalid")


def test_a_large_body_of_a_stranger_is_not_read(verse: Server) -> None:
    response = verse.client().post(ADDRESS, json=body(user("x" * 2_000_000)))
    assert (response.status_code, response.json()["error"]["code"]) == (401, "not_authenticated")


def test_a_conversation_of_2000_messages_is_one_chat(
    http: httpx2.Client, alice: User, openai_server: FakeOpenAI
) -> None:
    chat = StandaloneChat.objects.create(user=alice)
    messages = [
        user(f"Question {n}") if n % 2 == 0 else assistant(f"Answer {n}") for n in range(2_000)
    ]
    StandaloneChatMessage.objects.bulk_create(
        StandaloneChatMessage(user=alice, conversation=chat, **message) for message in messages
    )
    response = http.post(ADDRESS, json=body(*messages, user("And now?")))
    assert response.headers["X-Verse-Chat"] == str(chat.pk)
    messages[3] = assistant("Something else.")
    branch = http.post(ADDRESS, json=body(*messages, user("And now?")))
    assert branch.headers["X-Verse-Chat"] != str(chat.pk)


def test_two_requests_for_one_conversation_at_once(
    http: httpx2.Client, verse: Server, alice: User, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.script(*[Answer("Well.", first_token_s=1.0)] * 4)
    headers = {"X-Verse-Client-Chat": "one", "Authorization": http.headers["Authorization"]}
    codes: list[int] = []

    def ask() -> None:
        with httpx2.Client(base_url=verse.url, trust_env=False, timeout=PATIENCE_S) as client:
            reply = client.post(ADDRESS, json=body(user("Hi")), headers=headers)
            codes.append(reply.status_code)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(codes) == [200, 409, 409, 409]
    assert stored() == [("user", "Hi"), ("assistant", "Well.")]
    assert StandaloneChat.objects.count() == 1


@pytest.mark.soak  # a dead process is noticed after 10 s
def test_a_killed_process_leaves_a_turn_that_the_same_request_ends(
    server: Callable[..., Server], alice: User, openai_server: FakeOpenAI
) -> None:
    """Another process answers it, with the client's words before stored once."""
    key = create_token(alice)[1]
    first, second = server(), server()
    openai_server.chat.script(HangAfter("So far"))
    client = first.client(Authorization=f"Bearer {key}")
    with client.stream("POST", ADDRESS, json=body(user("Hi"), stream=True)) as response:
        next(chunk for chunk in response.iter_bytes() if b"far" in chunk)
        first.kill()
    ended = StandaloneChatMessage.objects.filter(status=Status.INTERRUPTED)
    wait_until(ended.exists)
    again = second.client(Authorization=f"Bearer {key}").post(ADDRESS, json=body(user("Hi")))
    assert again.json()["choices"][0]["message"]["content"] == "You said: Hi"
    assert texts() == ["Hi", "You said: Hi"]
