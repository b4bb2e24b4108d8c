"""What the tests ask the fake with: the real client, and sockets that see every byte."""

import contextlib
import json
import socket
from collections.abc import Iterator
from typing import Any

from openai import OpenAI

from fake_openai import FakeOpenAI

TIMEOUT_S = 3.0


@contextlib.contextmanager
def client_of(fake: FakeOpenAI, *, api_key: str = "sk-any") -> Iterator[OpenAI]:
    """OpenAI's own client, without its retries."""
    with OpenAI(
        base_url=fake.base_url, api_key=api_key, max_retries=0, timeout=TIMEOUT_S
    ) as client:
        yield client


def said(client: OpenAI, text: str = "Hello") -> str:
    """The streamed answer to one user message."""
    stream = client.chat.completions.create(
        model="gpt-4o-mini", messages=[{"role": "user", "content": text}], stream=True
    )
    return "".join(chunk.choices[0].delta.content or "" for chunk in stream)


@contextlib.contextmanager
def asked(fake: FakeOpenAI, text: str = "Hello", *, stream: bool = True) -> Iterator[socket.socket]:
    """A socket on which a chat completion has been asked for."""
    body = {
        "model": "gpt-4o-mini",
        "messages": [{"role": "user", "content": text}],
        "stream": stream,
    }
    with posted(fake, "/v1/chat/completions", json.dumps(body).encode()) as sock:
        yield sock


@contextlib.contextmanager
def posted(
    fake: FakeOpenAI, path: str, body: bytes, method: str = "POST"
) -> Iterator[socket.socket]:
    """A socket on which a request has been sent."""
    with socket.create_connection(("127.0.0.1", fake.port), TIMEOUT_S) as sock:
        sock.sendall(
            f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        yield sock


def everything(sock: socket.socket) -> tuple[bytes, str]:
    """All that comes until the body ends ("end"), the connection is closed ("fin", "rst") or 0.2 s pass."""
    sock.settimeout(0.2)
    got = b""
    while not _is_whole(got):
        try:
            part = sock.recv(65_536)
        except TimeoutError:
            return got, "silence"
        except ConnectionResetError:
            return got, "rst"
        if not part:
            return got, "fin"
        got += part
    return got, "end"


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


def _is_whole(answer: bytes) -> bool:
    head, found, body = answer.partition(b"\r\n\r\n")
    if not found:
        return False
    if b"chunked" in head:
        return body.endswith(b"0\r\n\r\n")
    length = next(
        line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length")
    )
    return len(body) >= int(length.partition(b":")[2])
