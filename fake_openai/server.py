"""The fake server, as tests use it."""

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
POLL_S = 0.005  # how often wait_for checks its condition
MODELS = ("gpt-4o-mini", "gpt-4o", "text-embedding-3-small", "text-embedding-3-large")


class FakeOpenAI:
    """Listens on 127.0.0.1 from ``start`` to ``stop``, or inside ``with``. Thread-safe.

    ``port`` 0 chooses a free port and keeps it for the next ``start``. With ``api_key``, any other
    key gets 401. Only the latest ``keep`` requests are recorded.
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
        """The ``base_url`` for OpenAI's client. Known after ``start``."""
        return f"http://127.0.0.1:{self.port}/v1"

    @property
    def requests(self) -> list[RecordedRequest]:
        """A copy of the list of all requests, in order of arrival."""
        return self._records.all()

    def start(self) -> None:
        """Listen, unless it already does. Raises OSError if the port is taken."""
        if self._loop is None:
            loop = ListeningLoop(lambda: Connection(self._answer, self._connections, self._errors))
            self.port = loop.start(self.port)
            self._loop = loop

    def stop(self) -> None:
        """Reset all connections and refuse new ones, like a service that is down, until ``start``.

        Raises RuntimeError if a behaviour raised: a test must not pass with a broken fake.
        """
        if self._loop is not None:
            self._loop.stop(lambda: self._close_connections(also_idle=True))
            self._loop = None
        self.unwatch_database()
        self._raise_own_errors()

    def reset(self) -> None:
        """Clear behaviours, requests, violations and the database; reset running exchanges."""
        if self._loop is not None:
            self._loop.run(self._close_connections(also_idle=False))
        self.unwatch_database()
        self.chat.reset()
        self.embeddings.reset()
        self._records.clear()
        self.violations.clear()
        self._raise_own_errors()

    def wait_for(self, condition: Callable[[], T], *, timeout_s: float = 60.0) -> T:
        """Wait until ``condition()`` is true. Returns its result. Raises TimeoutError."""
        deadline = time.monotonic() + timeout_s
        while not (result := condition()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"still false after {timeout_s} s; {self._summary()}")
            time.sleep(POLL_S)
        return result

    def watch_database(
        self, conninfo: str, only: str | None = None, max_busy: int | None = None
    ) -> None:
        """Before each answer, check pg_stat_activity for sessions idle in a transaction.

        ``only`` is a LIKE pattern for application_name. More than ``max_busy`` sessions that are
        not idle are a violation too. Lasts until ``stop``, ``reset`` or ``unwatch_database``, and
        uses one connection.
        """
        self.unwatch_database()
        self._watch = DatabaseWatch(
            conninfo, only=only, max_busy=max_busy, violations=self.violations
        )

    def unwatch_database(self) -> None:
        """Close the watch's connection. ``violations`` stay."""
        watch, self._watch = self._watch, None
        if watch is None:
            return
        if self._loop is not None:
            # Let a request that has just read self._watch submit its check first.
            self._loop.run(asyncio.sleep(0))
        watch.close()

    async def _answer(self, exchange: Exchange) -> None:
        self._records.add(exchange.request)
        endpoint = self._endpoint_of(exchange.request)
        if refusal := self._refusal_of(exchange.request, endpoint):
            await refusal.send(exchange)
        elif endpoint is None:
            await exchange.send_whole(_models(), content_type=JSON)
        else:
            if self._watch is not None:
                await self._watch.check(exchange.request.path)
            await endpoint.answer(exchange)

    def _endpoint_of(self, request: RecordedRequest) -> Endpoint | None:
        endpoints: dict[str, Endpoint] = {Chat.path: self.chat, Embeddings.path: self.embeddings}
        return endpoints.get(request.path)

    def _refusal_of(self, request: RecordedRequest, endpoint: Endpoint | None) -> Refuse | None:
        if endpoint is None and request.path != "/v1/models":
            message = f"Invalid URL ({request.method} {request.path})"
            return Refuse(404, "unknown_url", message)
        allowed = "POST" if endpoint else "GET"
        if request.method != allowed:
            message = f"Not allowed to {request.method} on {request.path}."
            return Refuse(405, "method_not_supported", message, {"allow": allowed})
        return self._refusal_of_key(request.headers.get("authorization", ""))

    def _refusal_of_key(self, authorization: str) -> Refuse | None:
        key = authorization.removeprefix("Bearer ").strip()
        if self.api_key is None or key == self.api_key:
            return None
        if not key:
            return Refuse(401, message="You didn't provide an API key.")
        return Refuse(401, message=f"Incorrect API key provided: {_masked(key)}.")

    async def _close_connections(self, *, also_idle: bool) -> None:
        connections = list(self._connections)
        await asyncio.gather(*(each.stop(also_idle=also_idle) for each in connections))

    def _raise_own_errors(self) -> None:
        errors, self._errors[:] = self._errors[:], []
        if errors:
            raise RuntimeError("a behaviour of the fake server failed") from errors[0]

    def _summary(self) -> str:
        latest = [(request.path, request.outcome) for request in self.requests[-5:]]
        return f"{len(self.requests)} requests: {latest}"


def _masked(key: str) -> str:
    """OpenAI repeats the first eight and the last four characters of a wrong key."""
    return f"{key[:8]}{'*' * max(len(key) - 12, 4)}{key[-4:]}"


def _models() -> bytes:
    models = [
        {"id": name, "object": "model", "created": 0, "owned_by": "openai"} for name in MODELS
    ]
    return as_json({"object": "list", "data": models})
