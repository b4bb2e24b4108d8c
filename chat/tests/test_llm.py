"""The call to the language model, without a turn around it."""

import socket
import threading
import time
from collections.abc import Iterator

import pytest
from pytest_django import Settings

from chat.answers import llm
from chat.answers.answer_reader import AnswerCallbacks
from chat.answers.errors import CompletionError
from fake_openai import Answer, FakeOpenAI
from retrieval import event_loop
from retrieval.root_cause import root_cause_name
from tests.support import PATIENCE_S

MESSAGES = [{"role": "user", "content": "Hello, é"}]
REFUSAL = b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000000\r\n\r\nI will tell you"


def ask() -> str:
    """The model's answer to MESSAGES."""
    pieces: list[str] = []
    event_loop.start(llm.complete(MESSAGES, AnswerCallbacks(pieces.append))).result()
    return "".join(pieces)


@pytest.fixture
def endless_refusal() -> Iterator[str]:
    """The base URL of a server that sends a 500 and never finishes its body."""
    with socket.create_server(("127.0.0.1", 0)) as server:

        def refuse() -> None:
            connection, _ = server.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(REFUSAL)
                connection.recv(1)  # until the client closes

        thread = threading.Thread(target=refuse)
        thread.start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        thread.join(PATIENCE_S)


@pytest.mark.parametrize("key", ["sk-mine", ""])
def test_the_key_is_sent_if_there_is_one(
    fake_openai: FakeOpenAI, settings: Settings, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-environment")
    settings.LLM_API_KEY = key
    fake_openai.chat.default = Answer("Good morning.")
    assert ask() == "Good morning."
    (request,) = fake_openai.chat.requests
    assert request.headers.get("authorization") == (f"Bearer {key}" if key else None)
    assert request.messages == MESSAGES
    assert not [name for name in request.headers if name.startswith(("x-stainless", "openai"))]


def test_a_refusal_is_reported_before_its_body_ends(
    endless_refusal: str, settings: Settings
) -> None:
    settings.LLM, settings.LLM_BASE_URL, settings.LLM_TIMEOUT_S = "openai", endless_refusal, 30
    began = time.monotonic()
    with pytest.raises(CompletionError, match="refused: status 500"):
        ask()
    assert time.monotonic() - began < 10


def test_an_unreachable_model_is_an_error_with_its_cause(settings: Settings) -> None:
    settings.LLM, settings.LLM_BASE_URL = "openai", "http://127.0.0.1:1/v1"
    with pytest.raises(CompletionError, match="could not be reached") as raised:
        ask()
    assert root_cause_name(raised.value) == "ConnectionRefusedError"
