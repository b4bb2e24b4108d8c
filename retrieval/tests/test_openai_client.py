"""The connections of OpenAI's client: how many, to whom, and when they close."""

import time
from collections.abc import Iterator

import httpx2
import openai
import pytest

from fake_openai import FakeOpenAI, Hang, Refuse
from retrieval import event_loop
from retrieval.openai_client import OpenAIClients
from tests.http_proxy import http_proxy
from tests.support import PATIENCE_S, free_port

BODY = {"model": "m", "input": ["hello"], "encoding_format": "base64"}
MORE_THAN_THE_DEFAULT = 120  # aiohttp's is 100 connections


@pytest.fixture(autouse=True)
def no_proxies(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("http_proxy", "https_proxy", "all_proxy", "no_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)


@pytest.fixture
def clients() -> Iterator[OpenAIClients]:
    clients = OpenAIClients()
    yield clients
    event_loop.start(clients.close()).result()


async def send(clients: OpenAIClients, base_url: str) -> httpx2.Response:
    """The response to one embedding call. Raises what ``OpenAIClient.send`` raises."""
    return await clients.get(base_url, "sk-test").send("/embeddings", BODY)


def test_the_number_of_connections_is_not_limited(fake: FakeOpenAI, clients: OpenAIClients) -> None:
    fake.embeddings.default = Hang()
    calls = [event_loop.start(send(clients, fake.base_url)) for _ in range(MORE_THAN_THE_DEFAULT)]
    give_up = time.monotonic() + PATIENCE_S
    while len(fake.requests) < MORE_THAN_THE_DEFAULT and time.monotonic() < give_up:
        time.sleep(0.01)
    for call in calls:
        call.cancel()
    assert len(fake.requests) == MORE_THAN_THE_DEFAULT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_never_reached_through_a_proxy(
    fake: FakeOpenAI, clients: OpenAIClients, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{free_port()}")
    base_url = fake.base_url.replace("127.0.0.1", host)
    assert event_loop.start(send(clients, base_url)).result().is_success


def test_another_machine_is_reached_through_the_proxy_of_the_environment(
    clients: OpenAIClients, monkeypatch: pytest.MonkeyPatch
) -> None:
    with http_proxy() as (address, urls):
        monkeypatch.setenv("http_proxy", address)
        event_loop.start(send(clients, "http://embeddings.test/v1")).result()
    assert urls == ["http://embeddings.test/v1/embeddings"]


@pytest.mark.parametrize("location", ["/v1/embeddings", "embeddings?again"])
def test_a_redirect_on_the_same_server_is_followed(
    location: str, fake: FakeOpenAI, clients: OpenAIClients
) -> None:
    fake.embeddings.script(*[Refuse(307, headers={"Location": location})] * 2)
    event_loop.start(send(clients, fake.base_url)).result()
    assert len(fake.requests) == 3
    assert len({request.raw for request in fake.requests}) == 1


@pytest.mark.parametrize(
    "location", ["http://127.0.0.1:1/v1", "https://127.0.0.1/v1", "//localhost/v1", "http://["]
)
def test_a_redirect_to_another_server_is_not_followed(
    location: str, fake: FakeOpenAI, clients: OpenAIClients
) -> None:
    fake.embeddings.default = Refuse(307, headers={"Location": location})
    with pytest.raises(openai.APIStatusError) as raised:
        event_loop.start(send(clients, fake.base_url)).result()
    assert raised.value.status_code == 307
    assert len(fake.requests) == 1


def test_redirects_in_a_circle_end(fake: FakeOpenAI, clients: OpenAIClients) -> None:
    fake.embeddings.default = Refuse(307, headers={"Location": "/v1/embeddings"})
    with pytest.raises(openai.APIStatusError):
        event_loop.start(send(clients, fake.base_url)).result()
    assert len(fake.requests) == 4
