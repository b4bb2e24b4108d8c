"""A process that stops and goes on, and a clock that jumps."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx2
import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import RunningAnswer, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.support import PATIENCE_S, Server, memory_settings, wait_for

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.soak]
Start = Callable[..., Server]
Record = Callable[[str, object], None]
WORDS = 200
SLOW = Answer("word " * WORDS, tokens_per_s=10)  # 20 s


def answer() -> StandaloneChatMessage:
    message: StandaloneChatMessage = StandaloneChatMessage.objects.get(role="assistant")
    return message


def ask(server: Server, user: User) -> threading.Thread:
    """Post a message in a thread; returns once its answer is stored in part."""
    chat = StandaloneChat.objects.create(user=user)
    client = server.client(create_token(user)[1])
    address = f"/api/chats/{chat.pk}/messages/"
    thread = threading.Thread(target=client.post, args=[address], kwargs={"json": {"content": "?"}})
    thread.start()
    wait_for(lambda: RunningAnswer.objects.exclude(text="").exists())
    return thread


def test_a_stopped_and_continued_process_writes_no_answer_that_was_ended(
    alice: User, server: Start, openai_server: FakeOpenAI, record_property: Record
) -> None:
    openai_server.chat.default = SLOW
    stopped = server(EMBEDDINGS="none")
    server(EMBEDDINGS="none")
    thread = ask(stopped, alice)
    os.killpg(stopped.process.pid, signal.SIGSTOP)
    began = time.monotonic()
    wait_for(lambda: answer().status == "interrupted")
    record_property("figure", f"ended after {time.monotonic() - began:.0f} s")
    text = answer().content
    os.killpg(stopped.process.pid, signal.SIGCONT)
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert (answer().status, answer().content) == ("interrupted", text)
    assert 0 < len(text) < len("word " * WORDS)
    assert not RunningAnswer.objects.exists()


@pytest.fixture(scope="module")
def clock(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A library that moves a process's clock; needs a C compiler."""
    library = tmp_path_factory.mktemp("clock") / "clock.so"
    source = Path(__file__).with_name("clock.c")
    subprocess.run(["cc", "-shared", "-fPIC", "-o", library, source, "-ldl"], check=True)
    return library


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_no_answer_ends_early_when_the_clock_jumps(
    jump_s: int, clock: Path, alice: User, server: Start, openai_server: FakeOpenAI, tmp_path: Path
) -> None:
    openai_server.chat.default = SLOW
    jump = tmp_path / "jump"
    jumping = server(LD_PRELOAD=str(clock), JUMP=str(jump), EMBEDDINGS="none")
    server(EMBEDDINGS="none")  # its clock does not jump, and it ends what seems abandoned
    thread = ask(jumping, alice)
    jump.write_text(str(jump_s))
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert answer().status == "complete"
    assert answer().content.split() == ["word"] * WORDS


@pytest.mark.parametrize("jump_s", [3600, -3600])
def test_order_and_forgetting_hold_when_a_servers_clock_jumps(
    jump_s: int, clock: Path, alice: User, server: Start, openai_server: FakeOpenAI, tmp_path: Path
) -> None:
    jump = tmp_path / "jump"
    wrong = server(LD_PRELOAD=str(clock), JUMP=str(jump), **memory_settings(openai_server))
    right = server(**memory_settings(openai_server))
    token = create_token(alice)[1]
    clients = [wrong.client(token), right.client(token)]
    jump.write_text(str(jump_s))
    fact = say(clients[0], new_chat(clients[0]), "The spare key is in the blue teapot.")
    chat = new_chat(clients[1])
    for number, client in enumerate([*clients, *clients]):  # each answer repeats the fact
        openai_server.chat.script(Answer(f"In the blue teapot, {number}."))
        say(client, chat, f"Where is the spare key? {number}")
    rows = clients[1].get(f"/api/chats/{chat}/messages/").json()["results"]
    assert [row["id"] for row in rows] == sorted(row["id"] for row in rows)
    editor = clients[jump_s > 0]  # the one whose clock is behind
    address = f"/api/chats/{fact['chat']}/messages/{fact['id']}/"
    editor.patch(address, json={"content": "The spare key is lost."}).raise_for_status()
    results = clients[1].get("/api/memory/search/", params={"q": "blue teapot", "limit": 50})
    assert "teapot" not in results.raise_for_status().text


def new_chat(client: httpx2.Client) -> int:
    return int(client.post("/api/chats/", json={}).raise_for_status().json()["id"])


def say(client: httpx2.Client, chat: int, content: str) -> dict[str, Any]:
    """The user's message, with its chat."""
    reply = client.post(f"/api/chats/{chat}/messages/", json={"content": content})
    return dict(reply.raise_for_status().json()["user_message"], chat=chat)
