"""Traffic: users who send requests at a rate, and repeat what failed, as a good client does.

A turn has an Idempotency-Key. After 409 ``in_progress``, 502, 503, 504, an ``error`` event or a
broken connection the same request is sent again after a second; so is a failed read. A user waits
for their own turn; the rate is kept by the others.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from queue import SimpleQueue
from typing import Any

import httpx2

from tests.cluster.site import Site, events_of, new_chat
from tests.support import PATIENCE_S

# Of ten requests: turns as JSON and as events, lists, searches.
KINDS = ["json", "list", "events", "search", "json", "chats", "list", "events", "search", "list"]
REPEATED = {409, 502, 503, 504}
PAUSE_S = 1.0  # before a request is sent again
GIVE_UP_S = 90.0  # more than a killed server's answer needs to end
GOOD = ""


@dataclass(frozen=True)
class Attempt:
    """``outcome`` is GOOD, or status and code, or what broke. Times are time.monotonic()."""

    began: float
    ended: float
    outcome: str


@dataclass
class Operation:
    """One thing that a user wanted, in one attempt or more. ``content``: the question of a turn."""

    kind: str
    content: str = ""
    attempts: list[Attempt] = field(default_factory=list)
    turn: Any = None  # {"user_message", "assistant_message"} as it was acknowledged

    @property
    def is_done(self) -> bool:
        return self.attempts[-1].outcome == GOOD


class FailedError(Exception):
    """A request failed; ``is_final`` if a repeat would be of no use."""

    def __init__(self, reason: str, *, is_final: bool = False) -> None:
        super().__init__(reason)
        self.is_final = is_final


class User:
    """A user with one chat, who does one thing at a time."""

    def __init__(self, site: Site, name: str) -> None:
        self.name, self.operations = name, list[Operation]()
        self._client = site.client(site.cluster.url, name)
        self.messages = new_chat(self._client)

    def get(self, address: str) -> Any:
        """The JSON of an address that must answer."""
        return self._client.get(address).raise_for_status().json()

    def perform(self, kind: str) -> None:
        """Do it, and record each attempt."""
        operation = Operation(kind)
        if kind in ("json", "events"):
            operation.content = f"{self.name} asks number {len(self.operations)} about bread"
        self.operations.append(operation)
        give_up_at = time.monotonic() + GIVE_UP_S
        while not self._attempt(operation) and time.monotonic() < give_up_at:
            time.sleep(PAUSE_S)

    def _attempt(self, operation: Operation) -> bool:
        """Whether the operation has ended."""
        began, outcome, has_ended = time.monotonic(), GOOD, True
        try:
            self._request(operation)
        except FailedError as error:
            outcome, has_ended = str(error), error.is_final
        except httpx2.ConnectError:
            outcome, has_ended = "refused", False
        except httpx2.TransportError:
            outcome, has_ended = "connection broken", False
        operation.attempts.append(Attempt(began, time.monotonic(), outcome))
        return has_ended

    def _request(self, operation: Operation) -> None:
        """One request. Raises FailedError, httpx2.TransportError."""
        match operation.kind:
            case "json":
                operation.turn = self._checked(self._post(operation)).json()
            case "events":
                operation.turn = self._streamed(operation)
            case "list":
                self._checked(self._client.get(f"{self.messages}?newest=1"))
            case "chats":
                self._checked(self._client.get("/api/chats/"))
            case "search":
                params = {"q": f"{self.name} bread"}
                self._checked(self._client.get("/api/memory/search/", params=params))

    def _post(self, operation: Operation) -> httpx2.Response:
        headers = {"Idempotency-Key": operation.content}
        body = {"content": operation.content}
        return self._client.post(self.messages, json=body, headers=headers)

    def _streamed(self, operation: Operation) -> Any:
        headers = {"Idempotency-Key": operation.content, "Accept": "text/event-stream"}
        body = {"content": operation.content}
        with self._client.stream("POST", self.messages, json=body, headers=headers) as response:
            if response.status_code != 200:
                response.read()
                self._checked(response)
            turn: dict[str, Any] = {}
            for name, data in events_of(response):
                if name == "error":
                    raise FailedError(f"event {data['code']}")
                if name in ("context", "done"):
                    turn |= data
        if "assistant_message" not in turn:
            raise FailedError("stream cut")
        return turn

    def _checked(self, response: httpx2.Response) -> httpx2.Response:
        if response.status_code < 400:
            return response
        code = ""
        if "json" in response.headers.get("content-type", ""):
            code = response.json().get("code", "")
        reason = f"{response.status_code} {code}".strip()
        raise FailedError(reason, is_final=response.status_code not in REPEATED)


class Traffic:
    """Requests of all users at ``rate`` a second, from ``start`` to ``stop``."""

    def __init__(self, site: Site, names: list[str], rate: float) -> None:
        self.users = [User(site, name) for name in names]
        self._rate, self._idle = rate, SimpleQueue[User]()
        for user in self.users:
            self._idle.put(user)
        self._ended = threading.Event()
        self._errors: list[Exception] = []
        self._threads: list[threading.Thread] = []
        self.late = 0  # requests that found no idle user

    @property
    def operations(self) -> Iterator[Operation]:
        return (operation for user in self.users for operation in user.operations)

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        """Inside the block requests are sent; at its end those that run are waited for."""
        pacer = threading.Thread(target=self._pace, name="pacer")
        pacer.start()
        try:
            yield self
        finally:
            self._ended.set()
            pacer.join()
            for thread in self._threads:
                thread.join(GIVE_UP_S + PATIENCE_S)
        if self._errors:
            raise self._errors[0]

    def _pace(self) -> None:
        began = time.monotonic()
        for number, kind in enumerate(cycle(KINDS)):
            if self._ended.wait(max(0.0, began + number / self._rate - time.monotonic())):
                return
            if self._idle.empty():
                self.late += 1
                continue
            user = self._idle.get()
            thread = threading.Thread(target=self._perform, args=(user, kind), name=user.name)
            thread.start()
            self._threads = [*(old for old in self._threads if old.is_alive()), thread]

    def _perform(self, user: User, kind: str) -> None:
        try:
            user.perform(kind)
        except Exception as error:  # noqa: BLE001 - raised by ``running``
            self._errors.append(error)
        finally:
            self._idle.put(user)
