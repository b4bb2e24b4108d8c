"""A path of the API: chooses the behaviour that answers a request."""

import threading
from abc import ABC, abstractmethod
from collections import deque

from fake_openai.behaviours import Behaviour, Refuse
from fake_openai.exchange import Exchange
from fake_openai.record import RecordedRequest, Records
from fake_openai.shapes import Shape


class Endpoint(ABC):
    """The first match answers: ``when`` (latest first), ``script``, ``default``, the usual answer.

    A request that is invalid for OpenAI gets its 400 and consumes no behaviour. Thread-safe.
    """

    path: str

    def __init__(self, records: Records) -> None:
        self._records = records
        self._lock = threading.Lock()
        self.reset()

    def reset(self) -> None:
        """Clear ``script``, ``when`` and ``default``."""
        with self._lock:
            self._script: deque[Behaviour] = deque()
            self._rules: deque[tuple[str, Behaviour]] = deque()
        self.default: Behaviour | None = None

    def script(self, *behaviours: Behaviour) -> None:
        """Queue behaviours. Each answers one request, in order."""
        with self._lock:
            self._script.extend(behaviours)

    def when(self, substring: str, behaviour: Behaviour) -> None:
        """Use the behaviour for every request whose text contains ``substring``."""
        with self._lock:
            self._rules.appendleft((substring, behaviour))

    @property
    def script_left(self) -> int:
        """How many scripted behaviours are unused."""
        return len(self._script)

    @property
    def requests(self) -> list[RecordedRequest]:
        """A copy of the list of this path's requests, with the invalid ones."""
        return self._records.all(self.path)

    async def answer(self, exchange: Exchange) -> None:
        """Answer a request with the behaviour chosen for it."""
        request = exchange.request
        behaviour = self.problem_of(request) or self._chosen(request)
        await behaviour.play(exchange, self.shape_of(exchange))

    @abstractmethod
    def problem_of(self, request: RecordedRequest) -> Refuse | None:
        """The 400 that OpenAI would answer, or None."""

    @abstractmethod
    def shape_of(self, exchange: Exchange) -> Shape:
        """The form of the answer to this request."""

    @abstractmethod
    def texts_of(self, request: RecordedRequest) -> list[str]:
        """Where ``when`` looks for its substring."""

    @abstractmethod
    def usual(self, request: RecordedRequest) -> Behaviour:
        """The answer when nothing else is set."""

    def _chosen(self, request: RecordedRequest) -> Behaviour:
        texts = self.texts_of(request)
        with self._lock:
            for substring, behaviour in self._rules:
                if any(substring in text for text in texts):
                    return behaviour
            if self._script:
                return self._script.popleft()
        return self.default or self.usual(request)


def invalid(message: str, code: str | None = None) -> Refuse:
    """OpenAI's 400 for an invalid request."""
    return Refuse(400, code, message)
