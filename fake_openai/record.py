"""The requests that the fake server received, in order of arrival."""

import json
import threading
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any, Literal

Outcome = Literal["running", "answered", "client_gone", "stopped"]


@dataclass(eq=False)
class RecordedRequest:
    """A request. The server updates it while it answers, so a test can watch it change.

    Times are ``time.monotonic()`` seconds. ``outcome`` is "running", then "answered" (the behaviour
    has finished), "client_gone" (the client disconnected first) or "stopped" (by ``stop`` or
    ``reset``). ``body`` is the parsed JSON, or None if the bytes are not JSON. ``usage``: the
    tokens of a good answer, whether the answer tells them or not.
    """

    method: str
    path: str
    headers: dict[str, str]
    raw: bytes
    arrived_at: float = field(default_factory=time.monotonic)
    finished_at: float | None = None
    client_gone_at: float | None = None
    outcome: Outcome = "running"
    usage: dict[str, Any] | None = None
    body: Any = field(init=False)

    def __post_init__(self) -> None:
        self.body = _parsed(self.raw)

    @property
    def fields(self) -> dict[str, Any]:
        """The body, or {} if it is not a JSON object."""
        return self.body if isinstance(self.body, dict) else {}

    @property
    def messages(self) -> list[dict[str, Any]]:
        """The prompt of a chat completion; [] for another request."""
        messages = self.fields.get("messages")
        if not isinstance(messages, list):
            return []
        return [message for message in messages if isinstance(message, dict)]

    @property
    def prompt_text(self) -> str:
        """The contents of all messages, joined by newlines."""
        return "\n".join(map(_content, self.messages))

    @property
    def last_user_text(self) -> str:
        """The content of the last message with the role user, or "".

        Without the text between two equal lines ``===== …`` at its beginning, which no person has
        said.
        """
        contents = [_content(item) for item in self.messages if item.get("role") == "user"]
        content = contents[-1] if contents else ""
        fence, _, rest = content.partition("\n")
        is_fenced = fence.startswith("===== ") and f"\n{fence}\n" in rest
        return rest.partition(f"\n{fence}\n")[2].lstrip("\n") if is_fenced else content

    @property
    def texts(self) -> list[str]:
        """The inputs of an embeddings request; a list of token numbers becomes "t1 t2 ..."."""
        inputs = self.fields.get("input")
        if not isinstance(inputs, list) or (inputs and isinstance(inputs[0], int)):
            inputs = [inputs]
        return [_as_text(item) for item in inputs if isinstance(item, str | list)]

    @property
    def streams(self) -> bool:
        """Whether the client requested server-sent events."""
        return self.fields.get("stream") is True

    @property
    def seconds(self) -> float | None:
        """From arrival to the end, or None while it runs."""
        return None if self.finished_at is None else self.finished_at - self.arrived_at

    def finish(self, outcome: Outcome) -> None:
        """Set the outcome. Only the first call counts."""
        if self.outcome != "running":
            return
        self.finished_at = time.monotonic()
        if outcome == "client_gone":
            self.client_gone_at = self.finished_at
        self.outcome = outcome


class Records:
    """The latest ``keep`` requests (None: all). Thread-safe."""

    def __init__(self, keep: int | None = None) -> None:
        self._lock = threading.Lock()
        self._requests: deque[RecordedRequest] = deque(maxlen=keep)

    def add(self, request: RecordedRequest) -> None:
        with self._lock:
            self._requests.append(request)

    def all(self, path: str | None = None) -> list[RecordedRequest]:
        """A copy of the list, in order of arrival; with ``path`` only those of it."""
        with self._lock:
            return [request for request in self._requests if path in (None, request.path)]

    def clear(self) -> None:
        with self._lock:
            self._requests.clear()


def _parsed(raw: bytes) -> Any:
    try:
        return json.loads(raw)
    except ValueError:
        return None


def _content(message: dict[str, Any]) -> str:
    content = message.get("content")
    if isinstance(content, list):  # OpenAI's other form: [{"type": "text", "text": "..."}]
        return "\n".join(str(part.get("text", "")) for part in content if isinstance(part, dict))
    return content if isinstance(content, str) else ""


def _as_text(item: str | list[Any]) -> str:
    return item if isinstance(item, str) else " ".join(f"t{number}" for number in item)
