"""Deploying under traffic: no request fails, no answer is cut off."""

import signal
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import pytest
from django.contrib.auth.models import User

from chat.auth.api_tokens import create_token
from chat.models import StandaloneChat, StandaloneChatMessage
from fake_openai import Answer, FakeOpenAI
from tests.support import PATIENCE_S, Server
from tests.test_answers import TEXT, read_stream, text_of

pytestmark = pytest.mark.django_db(transaction=True)
Start = Callable[..., Server]
STREAMS = 40
LIMITS = {"STREAMS_PER_USER": "1000", "WEB_CONCURRENCY": "2", "THROTTLE_MESSAGES": "off"}


class Traffic:
    """Running streams, and repeated small requests to the server ``target``."""

    def __init__(self, target: Server, user: User) -> None:
        self.target = target
        self.token = create_token(user)[1]
        self.user = user
        self.statuses: list[int] = []
        self._over = threading.Event()
        self._pool = ThreadPoolExecutor(STREAMS + 1)
        self._small = self._pool.submit(self._send_small_requests)

    def stream(self, count: int) -> list[Future[Any]]:
        """Start this many streams."""
        return [
            self._pool.submit(self._stream, StandaloneChat.objects.create(user=self.user).pk)
            for _ in range(count)
        ]

    def end(self) -> None:
        """Stop sending requests. Raises the error of a failed one."""
        self._over.set()
        self._small.result(30)
        self._pool.shutdown()

    def _stream(self, chat: int) -> str:
        url = f"/api/chats/{chat}/messages/"
        return text_of(read_stream(self.target.client(self.token), url, json={"content": "Hello"}))

    def _send_small_requests(self) -> None:
        while not self._over.wait(0.05):
            client = self.target.client(self.token)
            self.statuses.append(client.get("/api/chats/").status_code)
            client.close()


def wait_until_answering(fake: FakeOpenAI) -> None:
    """Wait until the model has received all requests."""
    fake.wait_for(lambda: len(fake.chat.requests) == STREAMS, timeout_s=PATIENCE_S)


@pytest.mark.soak
def test_a_reload_by_sighup_fails_no_request_and_no_answer(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=15)
    reloaded = server(**LIMITS)
    traffic = Traffic(reloaded, alice)
    streams = traffic.stream(STREAMS)
    wait_until_answering(openai_server)
    reloaded.signal(signal.SIGHUP)
    reloaded.wait_until_ready(4)  # two workers more
    assert [stream.result(PATIENCE_S) for stream in streams] == [TEXT] * STREAMS
    traffic.end()
    assert set(traffic.statuses) == {200}
    assert set(StandaloneChatMessage.objects.values_list("status", flat=True)) == {"complete"}


def test_a_new_server_takes_over_and_the_old_one_finishes_answers(
    alice: User, server: Start, openai_server: FakeOpenAI
) -> None:
    openai_server.chat.default = Answer(TEXT, tokens_per_s=15)
    old, new = server(**LIMITS), server(**LIMITS)
    traffic = Traffic(old, alice)
    streams = traffic.stream(STREAMS)
    wait_until_answering(openai_server)
    traffic.target = new  # as a load balancer does while the old one is draining
    threading.Event().wait(0.5)
    old.signal(signal.SIGTERM)
    assert [stream.result(PATIENCE_S) for stream in streams] == [TEXT] * STREAMS
    assert (
        old.process.wait(PATIENCE_S) == 0
    )  # 30 s if a client keeps its connection: gunicorn.conf.py
    traffic.end()
    assert set(traffic.statuses) == {200}
    assert set(StandaloneChatMessage.objects.values_list("status", flat=True)) == {"complete"}
