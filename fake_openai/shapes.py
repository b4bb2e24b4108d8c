"""What a good answer looks like on the wire, whole and begun; the behaviours bend it."""

from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import Protocol

EVENTS = "text/event-stream; charset=utf-8"
JSON = "application/json"


@dataclass(frozen=True)
class Style:
    """How a completion is written down; only ``finish_reason`` matters outside a stream."""

    finish_reason: str = "stop"
    line_end: str = "\n"
    comments: bool = False
    null_deltas: bool = False
    words_per_delta: int = 1


PLAIN = Style()


class Shape(Protocol):
    """The pieces of one request's answer; joined, they are the body."""

    content_type: str

    def whole(self, text: str, style: Style = PLAIN) -> list[bytes]:
        """A complete answer."""

    def begun(self, text: str) -> list[bytes]:
        """An answer that stops after ``text``."""

    def garbled(self) -> list[bytes]:
        """An answer with cut-off JSON in it."""

    def failed(self, text: str, error: bytes) -> list[bytes]:
        """An answer that says ``text`` and then the JSON ``error``."""

    def empty(self) -> list[bytes]:
        """An answer without content."""


class JsonShape(ABC):
    """One JSON object: a completion that is not streamed, or embeddings. Cut, it lacks its last third."""

    content_type = JSON

    @abstractmethod
    def one(self, text: str, style: Style) -> bytes:
        """The object of a complete answer."""

    @abstractmethod
    def empty(self) -> list[bytes]:
        """The object without content."""

    def whole(self, text: str, style: Style = PLAIN) -> list[bytes]:
        return [self.one(text, style)]

    def begun(self, text: str) -> list[bytes]:
        body = self.one(text, PLAIN)
        return [body[: len(body) * 2 // 3]]

    def garbled(self) -> list[bytes]:
        return self.begun("Some words.")

    def failed(self, text: str, error: bytes) -> list[bytes]:
        return [error]
