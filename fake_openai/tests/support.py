"""Clients for tests of the fake server: OpenAI's own, and raw sockets."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from openai import OpenAI

from fake_openai import FakeOpenAI

TIMEOUT_S = 30.0  # much more than needed, for a busy machine
SILENCE_S = 0.5  # so long without a byte means that no more come


@contextlib.contextmanager
def client_of(fake: FakeOpenAI, *, api_key: str = "sk-any") -> Iterator[OpenAI]:
    """OpenAI's own client, without its retries."""
    with OpenAI(
        base_url=fake.base_url, api_key=api_key, max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


def streamed_text(client: OpenAI, text: str = "Hello") -> str:
    """The streamed answer to one user message."""
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}], stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@contextlib.contextmanager
def chat_request(
    fake: FakeOpenAI, text: str = "Hello", *, stream: bool = True
) -> Iterator[socket.socket]:
    """A socket on which a chat completion was requested; its answer is not read yet."""
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    with sent_request(fake, "/v1/chat/completions", json.dumps(body).encode()) as sock:
        yield sock


@contextlib.contextmanager
def sent_request(
    fake: FakeOpenAI, path: str, body: bytes, method: str = "POST"
) -> Iterator[socket.socket]:
    """A socket on which this request was sent; its answer is not read yet."""
    with socket.create_connection(("127.0.0.1", fake.port), TIMEOUT_S) as sock:
        sock.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        yield sock


def read_answer(sock: socket.socket, *, first_byte_s: float = TIMEOUT_S) -> tuple[bytes, str]:
    """All bytes of the answer, and why reading ended.

    "end": the body is complete. "fin", "rst": the server closed or reset the connection. "silence":
    no byte came for ``first_byte_s``, or for SILENCE_S after another byte.
    """
    sock.settimeout(first_byte_s)
    received = b""
    while not _is_complete(received):
        try:
            part = sock.recv(65_536)
        except TimeoutError:
            return received, "silence"
        except ConnectionResetError:
            return received, "rst"
        if not part:
            return received, "fin"
        received += part
        sock.settimeout(SILENCE_S)
    return received, "end"


def chunks_of(answer: bytes) -> list[bytes]:
    """The chunks of a chunked body."""
    rest = answer.partition(b"\r\n\r\n")[2]
    chunks = []
    while rest:
        size, _, rest = rest.partition(b"\r\n")
        chunks.append(rest[: int(size, 16)])
        rest = rest[int(size, 16) + 2 :]
    return [chunk for chunk in chunks if chunk]


def json_of(answer: bytes) -> Any:
    """The JSON body of an answer with a content length."""
    return json.loads(answer.partition(b"\r\n\r\n")[2])


def _is_complete(answer: bytes) -> bool:
    head, separator, body = answer.partition(b"\r\n\r\n")
    if not separator:
        return False
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = next(
        line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return len(body) >= int(length.partition(b":")[2])
