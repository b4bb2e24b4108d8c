"""What the checks and the traffic share: clients of the balancer and of each server, and events."""

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import httpx2

from tests.cluster.parts import SLOWLY, Cluster
from tests.support import PATIENCE_S


@dataclass
class Site:
    """The balancer and its servers, as alice sees them; bob is another user."""

    cluster: Cluster
    clients: list[httpx2.Client] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.alice, self.bob = (self.client(self.cluster.url, user) for user in ("alice", "bob"))
        self.each_server = [self.client(server.url, "alice") for server in self.cluster.servers]

    def client(self, url: str, user: str) -> httpx2.Client:
        headers = {"Authorization": f"Token {self.cluster.tokens[user]}"}
        self.clients.append(
            httpx2.Client(base_url=url, headers=headers, timeout=PATIENCE_S, trust_env=False)
        )
        return self.clients[-1]

    def close(self) -> None:
        for client in self.clients:
            client.close()


def new_chat(client: httpx2.Client, **fields: Any) -> str:
    """The path of the messages of a new chat."""
    chat = client.post("/api/chats/", json=fields).raise_for_status().json()
    return f"/api/chats/{chat['id']}/messages/"


def say(client: httpx2.Client, messages: str, content: str, **headers: str) -> Any:
    """A turn as JSON."""
    answer = client.post(messages, json={"content": content}, headers=headers)
    assert answer.status_code == 201, answer.text
    return answer.json()


def contents(client: httpx2.Client, messages: str) -> list[str]:
    page = client.get(messages).raise_for_status().json()
    return [message["content"] for message in page["results"]]


def events_of(response: httpx2.Response) -> Iterator[tuple[str, Any]]:
    """Pairs of an event's name and its data, as they come."""
    name = ""
    for line in response.iter_lines():
        label, _, value = line.partition(": ")
        if label == "event":
            name = value
        elif label == "data":
            yield name, json.loads(value)


class SlowTurn:
    """A streamed turn through the balancer whose answer takes 20 s; inside ``with`` it runs."""

    def __init__(self, client: httpx2.Client, messages: str) -> None:
        self.messages = messages
        headers = {"Accept": "text/event-stream"}
        content = {"content": f"Count {SLOWLY} to a hundred"}
        self._stream = client.stream("POST", messages, json=content, headers=headers)

    def __enter__(self) -> "SlowTurn":
        self.events = events_of(self._stream.__enter__())
        assert next(self.events)[0] == "context"
        assert next(self.events)[0] == "delta"
        return self

    def __exit__(self, *_: object) -> None:
        self._stream.__exit__(None, None, None)

    def answer(self, client: httpx2.Client) -> Any:
        return client.get(self.messages).raise_for_status().json()["results"][-1]
