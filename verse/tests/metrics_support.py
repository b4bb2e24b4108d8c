"""For tests of /metrics: what it answers, as a Prometheus server reads it."""

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from django.test import override_settings
from prometheus_client.parser import text_string_to_metric_families

from retrieval.telemetry import exposition, metrics
from tests.support import PATIENCE_S
from verse.asgi_messages import Message
from verse.metrics_endpoint import serve_metrics

TOKEN = "metrics-token-5e1d"
BEARER = f"Bearer {TOKEN}"
Samples = dict[str, float]  # by name and labels, as the text shows them: verse_turns_total{…}


@contextmanager
def counted() -> Iterator[None]:
    """Metrics that begin at 0, and a token that reads them."""
    exposition.registry.cache_clear()
    with override_settings(METRICS_TOKEN=TOKEN):
        exposition.registry()
        yield
    exposition.registry.cache_clear()
    metrics.disable()


def parse(text: str) -> Samples:
    """Each sample of the text, by Prometheus' own parser for Python."""
    return {
        sample.name + "".join(f" {k}={v}" for k, v in sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def _not_found(_scope: Any, _receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 404, "headers": []})
    await send({"type": "http.response.body", "body": b""})


def ask(
    authorization: str | None = BEARER,
    *,
    method: str = "GET",
    path: str = "/metrics",
    accept: str = "*/*",
) -> tuple[int, str, dict[bytes, bytes]]:
    """Status, body and headers of a request to the endpoint before an empty application."""
    headers = [(b"accept", accept.encode())]
    if authorization is not None:
        headers.append((b"authorization", authorization.encode()))
    scope = {"type": "http", "method": method, "path": path, "headers": headers}
    sent: list[Message] = []

    async def send(message: Message) -> None:
        sent.append(message)

    async def receive() -> Message:
        return {"type": "http.request", "body": b""}

    async def answer() -> None:
        await serve_metrics(_not_found)(scope, receive, send)

    asyncio.run(answer())
    start, body = sent
    return start["status"], body["body"].decode(), dict(start["headers"])


def scrape() -> Samples:
    status, text, _ = ask()
    assert status == 200, text
    return parse(text)


def scrape_until(name: str, value: float) -> Samples:
    """Scrape until the sample has this value: an answer is counted just after it is saved."""
    until = time.monotonic() + PATIENCE_S
    while (samples := scrape())[name] != value:
        assert time.monotonic() < until, samples[name]
        time.sleep(0.01)
    return samples
