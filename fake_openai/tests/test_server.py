"""Keys, paths, outages, many streams at once, and clients that disconnect."""

import asyncio
import json
import socket
import time

import openai
import pytest

from fake_openai import Answer, Behaviour, FakeOpenAI, Hang, HangAfter, Html, Trickle
from fake_openai.tests.support import (
    chat_request,
    client_of,
    json_of,
    read_answer,
    sent_request,
    streamed_text,
)

BODY = json.dumps(
    {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
).encode()
SLOW = Answer("word " * 500, tokens_per_s=25)


@pytest.mark.parametrize("reset", [False, True])
@pytest.mark.parametrize(
    "behaviour",
    [Hang(), HangAfter("Some words"), SLOW, Trickle(every_s=10), Html(page="x" * 20_000_000)],
)
def test_a_disconnect_is_noticed_at_once(behaviour: Behaviour, reset: bool) -> None:
    with FakeOpenAI() as fake:
        fake.chat.default = behaviour
        with chat_request(fake) as sock:
            request = fake.wait_for(lambda: fake.chat.requests)[0]
            assert request.outcome == "running"
            if reset:
                sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
        # Far sooner than the behaviour would end by itself.
        gone_at = fake.wait_for(lambda: request.client_gone_at)
    assert (request.outcome, request.finished_at) == ("client_gone", gone_at)


def test_openais_client_closing_a_stream_is_noticed() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.chat.default = SLOW
        stream = client.chat.completions.create(
            model="m", messages=[{"role": "user", "content": "Hi"}], stream=True
        )
        next(stream)
        stream.close()
        fake.wait_for(lambda: fake.chat.requests[0].client_gone_at)


def test_a_disconnect_after_the_answer_changes_no_outcome() -> None:
    with FakeOpenAI() as fake:
        with chat_request(fake) as sock:
            read_answer(sock)
        time.sleep(0.05)
        assert (fake.requests[0].outcome, fake.requests[0].client_gone_at) == ("answered", None)


async def read_stream(port: int) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    headers = f"Content-Length: {len(BODY)}\r\nConnection: close\r\n"
    head = f"POST /v1/chat/completions HTTP/1.1\r\n{headers}\r\n"
    writer.write(head.encode() + BODY)
    answer = await reader.read(-1)
    writer.close()
    await writer.wait_closed()
    return answer


def test_two_hundred_streams_keep_their_speed() -> None:
    async def read_all(port: int) -> list[bytes]:
        return await asyncio.gather(*(read_stream(port) for _ in range(200)))

    with FakeOpenAI() as fake:
        # 26 words and a last space: 26 pauses of 0.04 s
        fake.chat.default = Answer("word " * 26, tokens_per_s=25)
        started = time.monotonic()
        answers = asyncio.run(read_all(fake.port))
        took_s = time.monotonic() - started
    assert all(b"[DONE]" in answer for answer in answers)
    assert 1.0 <= took_s < 20  # one after the other: 208 s


def test_a_stopped_service_starts_again_on_its_port() -> None:
    fake = FakeOpenAI()
    fake.start()
    port = fake.port
    fake.chat.default = Hang()
    with client_of(fake) as client, chat_request(fake) as sock:
        fake.wait_for(lambda: fake.chat.requests)
        fake.stop()
        assert read_answer(sock)[1] == "rst"
        assert fake.requests[0].outcome == "stopped"
        with pytest.raises(openai.APIConnectionError):
            streamed_text(client)
        fake.start()
        assert fake.port == port
        fake.chat.default = Answer("Back again.")
        assert streamed_text(client) == "Back again."
    fake.stop()
    fake.stop()


def test_a_taken_port_is_an_error() -> None:
    with FakeOpenAI() as fake, pytest.raises(OSError, match="address already in use"):
        FakeOpenAI(port=fake.port).start()


def test_reset_ends_running_exchanges() -> None:
    with FakeOpenAI() as fake:
        fake.chat.default = Hang()
        with chat_request(fake) as sock:
            request = fake.wait_for(lambda: fake.chat.requests)[0]
            fake.reset()
            assert read_answer(sock)[1] == "rst"
        assert (request.outcome, fake.requests) == ("stopped", [])


def test_a_wrong_key_is_refused_and_masked() -> None:
    wrong = "sk-wrong-0123456789abcdef"
    with FakeOpenAI(api_key="sk-right") as fake, client_of(fake, api_key=wrong) as client:
        with pytest.raises(openai.AuthenticationError) as refused:
            streamed_text(client)
        assert refused.value.code == "invalid_api_key"
        assert "sk-wrong*" in str(refused.value)
        assert wrong not in str(refused.value)
        assert fake.requests[0].outcome == "answered"
    with FakeOpenAI(api_key="sk-right") as fake, client_of(fake, api_key="sk-right") as client:
        assert streamed_text(client) == "You said: Hello"


def test_unknown_paths_and_methods_are_refused() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        assert "gpt-4o-mini" in [model.id for model in client.models.list()]
        with sent_request(fake, "/v1/nothing", b"{}") as sock:
            assert json_of(read_answer(sock)[0])["error"]["code"] == "unknown_url"
        with sent_request(fake, "/v1/embeddings", b"", method="GET") as sock:
            answer, _ = read_answer(sock)
    assert b"405 Method Not Allowed" in answer
    assert b"allow: POST" in answer


@pytest.mark.parametrize(
    ("request_bytes", "status"),
    [
        (b"nonsense\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nContent-Length: 99999999\r\n\r\n", b"413"),
        (b"POST / HTTP/1.1\r\nContent-Length: -1\r\n\r\n", b"400"),
        (b"POST / HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n", b"411"),
        (b"x" * 70_000, b"431"),
    ],
)
def test_malformed_requests_are_refused(request_bytes: bytes, status: bytes) -> None:
    with FakeOpenAI() as fake, socket.create_connection(("127.0.0.1", fake.port), 3) as sock:
        sock.sendall(request_bytes)
        assert sock.recv(1000).startswith(b"HTTP/1.1 " + status)


def test_connections_are_kept_alive_and_large_bodies_are_accepted() -> None:
    with (
        FakeOpenAI() as fake,
        sent_request(fake, "/v1/embeddings", b'{"a": "' + b"x" * 19_000_000 + b'"}') as sock,
    ):
        assert b"you must provide a model" in read_answer(sock)[0]
        sock.sendall(b"GET /v1/models HTTP/1.1\r\n\r\nGET /v1/models HTTP/1.1\r\n\r\n")
        fake.wait_for(lambda: len(fake.requests) == 3)
        assert read_answer(sock)[0].count(b"200 OK") >= 1
        assert len(fake.requests[0].raw) > 19_000_000


def test_a_wait_that_times_out_names_the_requests() -> None:
    with FakeOpenAI() as fake, pytest.raises(TimeoutError, match="0 requests"):
        fake.wait_for(lambda: fake.requests, timeout_s=0.02)
