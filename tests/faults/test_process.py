"""A process that stops and goes on, and a clock that jumps."""

import os
import signal
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import RunningAnswer, StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.support import PATIENCE_S, Server, wait_for

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
