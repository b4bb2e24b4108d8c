"""The bytes of a good answer, complete or partial. Behaviours change them."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True)
class Style:
    """How a completion is written. Outside a stream only ``finish_reason`` and tokens matter."""

    finish_reason: str = "stop"
    line_end: str = "\n"
    comments: bool = False
    null_deltas: bool = False
    words_per_delta: int = 1
    cached_tokens: int = 0  # of the prompt, in the usage


PLAIN = Style()


class Shape(Protocol):
    """The answer to a request in pieces. Joined, they are the body."""

    content_type: str

    def whole(self, text: str, style: Style = PLAIN) -> list[bytes]:
        """A complete answer."""

    def begun(self, text: str) -> list[bytes]:
        """An answer that stops after ``text``."""

    def garbled(self) -> list[bytes]:
        """An answer with truncated JSON in it."""

    def failed(self, text: str, error: bytes) -> list[bytes]:
        """An answer with ``text`` and then the JSON ``error``."""

    def empty(self) -> list[bytes]:
        """An answer without content."""


class JsonShape(ABC):
    """A JSON object: a whole completion, or embeddings. A partial one lacks its last third."""

    content_type = JSON

    @abstractmethod
    def complete(self, text: str, style: Style) -> bytes:
        """The object of a complete answer."""

    @abstractmethod
    def empty(self) -> list[bytes]:
        """The object without content."""

    def whole(self, text: str, style: Style = PLAIN) -> list[bytes]:
        return [self.complete(text, style)]

    def begun(self, text: str) -> list[bytes]:
        body = self.complete(text, PLAIN)
        return [body[: len(body) * 2 // 3]]

    def garbled(self) -> list[bytes]:
        return self.begun("Some words.")

    def failed(self, text: str, error: bytes) -> list[bytes]:
        return [error]
