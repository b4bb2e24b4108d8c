"""The fake itself: what a test holds in its hand."""

import asyncio
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self, TypeVar

from fake_openai.behaviours import Refuse
from fake_openai.chat import Chat
from fake_openai.connection import Connection
from fake_openai.embeddings import Embeddings
from fake_openai.endpoint import Endpoint
from fake_openai.exchange import Exchange, as_json
from fake_openai.loop import ListeningLoop
from fake_openai.record import RecordedRequest, Records
from fake_openai.shapes import JSON
from fake_openai.watch import DatabaseWatch

T = TypeVar("T")
POLL_S = 0.005  # how often wait_for looks
MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "text-embedding-3-large")


class FakeOpenAI:
    """A server on 127.0.0.1 that speaks OpenAI's protocol from ``start`` to ``stop``, or inside ``with``.

    ``port`` 0 takes a free one and keeps it for the next ``start``. With ``api_key``, any other key gets 401.
    ``keep`` bounds the recorded requests. Safe to use from any thread.
    """

    def __init__(
        self, *, port: int = 0, api_key: str | None = None, keep: int | None = None
    ) -> None:
        self.port = port
        self.api_key = api_key
        self._records = Records(keep)
        self.chat = Chat(self._records)
        self.embeddings = Embeddings(self._records)
        self.violations: list[str] = []
        self._connections: set[Connection] = set()
        self._errors: list[BaseException] = []
        self._loop: ListeningLoop | None = None
        self._watch: DatabaseWatch | None = None

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def base_url(self) -> str:
        """What OpenAI's client calls its base URL; known once the server has been started."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """All requests so far, of every path, in order of arrival; a new list of the live records."""
        return self._records.all()

    def start(self) -> None:
        """Listen; nothing when it does already. Raises OSError when the port is taken."""
        if self._loop is None:
            loop = ListeningLoop(lambda: Connection(self._answer, self._connections, self._errors))
            self.port = loop.start(self.port)
            self._loop = loop

    def stop(self) -> None:
        """Cut every connection and refuse new ones, as a service that is down; ``start`` ends that.

        Raises RuntimeError when a behaviour itself has failed: the test must not pass on a broken fake.
        """
        if self._loop is not None:
            self._loop.stop(lambda: self._cut(idle_too=True))
            self._loop = None
        self.unwatch_database()
        self._raise_own_errors()

    def reset(self) -> None:
        """Forget behaviours, requests, violations and the database; cut the exchanges that still run."""
        if self._loop is not None:
            self._loop.run(self._cut(idle_too=False))
        self.unwatch_database()
        self.chat.reset()
        self.embeddings.reset()
        self._records.clear()
        self.violations.clear()
        self._raise_own_errors()

    def wait_for(self, condition: Callable[[], T], *, timeout_s: float = 5.0) -> T:
        """Wait until ``condition()`` is true and return what it gave. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still not so after {timeout_s} s; {self._summary()}")
            time.sleep(POLL_S)
        return result

    def watch_database(
        self, conninfo: str, only: str | None = None, most_busy: int | None = None
    ) -> None:
        """Before each chat or embeddings answer, see in pg_stat_activity who sits idle in a transaction.

        ``only`` is a LIKE pattern for application_name; ``most_busy``: more sessions that are not idle are
        a violation. Until ``stop``, ``reset`` or ``unwatch_database``; it holds one connection.
        """
        self.unwatch_database()
        self._watch = DatabaseWatch(
            conninfo, only=only, most_busy=most_busy, violations=self.violations
        )

    def unwatch_database(self) -> None:
        """Close the watching connection; ``violations`` stay."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        if self._loop is not None:
            # A request that saw the watch a moment ago has, after this, handed it its look.
            self._loop.run(asyncio.sleep(0))
        watch.close()

    async def _answer(self, exchange: Exchange) -> None:
        self._records.add(exchange.request)
        endpoint = self._endpoint_of(exchange.request)
        if refusal := self._refusal_at_the_door(exchange.request, endpoint):
            await refusal.send(exchange)
        elif endpoint is None:
            await exchange.send_whole(_models(), content_type=JSON)
        else:
            if self._watch is not None:
                await self._watch.look(exchange.request.path)
            await endpoint.answer(exchange)

    def _endpoint_of(self, request: RecordedRequest) -> Endpoint | None:
        return next((one for one in (self.chat, self.embeddings) if one.path == request.path), None)

    def _refusal_at_the_door(
        self, request: RecordedRequest, endpoint: Endpoint | None
    ) -> Refuse | None:
        if endpoint is None and request.path != "/v1/models":
            message = f"Invalid URL ({request.method} {request.path})"
            return Refuse(404, "unknown_url", message)
        allowed = "POST" if endpoint else "GET"
        if request.method != allowed:
            message = f"Not allowed to {request.method} on {request.path}."
            return Refuse(405, "method_not_supported", message, {"allow": allowed})
        return self._refusal_of_key(request.headers.get("authorization", ""))

    def _refusal_of_key(self, authorization: str) -> Refuse | None:
        given = authorization.removeprefix("Bearer ").strip()
        if self.api_key is None or given == self.api_key:
            return None
        if not given:
            return Refuse(401, message="You didn't provide an API key.")
        return Refuse(401, message=f"Incorrect API key provided: {_masked(given)}.")

    async def _cut(self, *, idle_too: bool) -> None:
        await asyncio.gather(*(one.stop(idle_too=idle_too) for one in list(self._connections)))

    def _raise_own_errors(self) -> None:
        errors, self._errors[:] = self._errors[:], []
        if errors:
            raise RuntimeError("a behaviour of the fake server failed") from errors[0]

    def _summary(self) -> str:
        return f"{len(self.requests)} requests: {[(one.path, one.outcome) for one in self.requests[-5:]]}"


def _masked(key: str) -> str:
    """OpenAI quotes the first eight and the last four characters of a wrong key back."""
    return f"{key[:8]}{'*' * max(len(key) - 12, 4)}{key[-4:]}"


def _models() -> bytes:
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "openai"} for name in MODELS
    ]
    return as_json({"object": "list", "data": models})
