"""Parses the answer of a chat completions server: OpenAI's chunks, or one JSON object."""

import json
from collections.abc import Iterator
from typing import Any

from chat.answers.errors import CompletionError
from chat.answers.event_stream_parser import BYTE_ORDER_MARK, EventStreamParser
from chat.answers.reasoning import Piece, ReasoningSplitter
from retrieval.service_errors import shown_code

MAX_EVENT_BYTES = 16_000_000  # bounds the memory of an endless event or object
REPLACED = {0: "\N{REPLACEMENT CHARACTER}"}  # PostgreSQL's text type cannot store NUL
RAW_DECODE = json.JSONDecoder().raw_decode
HIGH_SURROGATES = range(0xD800, 0xDC00)  # the first halves of characters beyond U+FFFF


class CompletionParser:
    """Gives the pieces of an answer as its bytes come.

    ``is_complete``: the server has ended the answer, by ``[DONE]``, a ``finish_reason`` or one JSON
    object; ``is_done``: by ``[DONE]``, after which comes nothing. ``finish_reason`` and ``usage``
    (its count of tokens) are None if it gave none.
    """

    def __init__(self, *, key: str = "") -> None:
        self.is_complete = self.is_done = False
        self.finish_reason: str | None = None
        self.usage: dict[str, Any] | None = None
        self._key = key  # never repeated, even if the server does
        self._start = b""  # bytes before it is known whether this is one JSON object
        self._events: EventStreamParser | None = None
        self._object: list[bytes] | None = None
        self._object_bytes = 0
        self._splitter = ReasoningSplitter()
        self._half_character = ""
        self._call_count = 0  # calls of tools so far
        self._call_indexes: dict[str, int] = {}  # by id, of those that came without an index

    def feed(self, chunk: bytes) -> Iterator[Piece]:
        """Raises CompletionError for the server's error, ValueError for an invalid answer."""
        if self._events is None and self._object is None:
            chunk, self._start = self._start + chunk, b""
            body = chunk.removeprefix(BYTE_ORDER_MARK).lstrip()
            if not body:
                self._start = chunk
            elif body.startswith(b"{"):  # no line of an event stream begins so
                self._object, chunk = [], body
            else:
                self._events = EventStreamParser(max_event_bytes=MAX_EVENT_BYTES)
        if self._events is not None:
            for data in self._events.feed(chunk):
                yield self._parse_event(data)
        elif self._object is not None:
            self._add_to_object(chunk)

    def end(self) -> Iterator[Piece]:
        """The rest, at the end of the body. Raises as ``feed``."""
        if self._object is not None:
            body, self._object = b"".join(self._object), None
            yield self._parse_event(body.decode(errors="replace"))
            self.is_complete = True
        if self._half_character:
            yield self._splitter.feed(storable(self._half_character))
        yield self._splitter.end()

    def _add_to_object(self, chunk: bytes) -> None:
        self._object_bytes += len(chunk)
        if self._object_bytes > MAX_EVENT_BYTES or self._object is None:
            raise ValueError("the object does not end")
        self._object.append(chunk)

    def _parse_event(self, data: str) -> Piece:
        if data.startswith("[DONE]"):
            self.is_complete = self.is_done = True
            return Piece()
        event = _loads(data)
        if not isinstance(event, dict):
            raise ValueError("the event is no object")
        if event.get("error") or event.get("object") == "error":
            raise self._error_in(event)
        # A last event without choices may hold the usage.
        if isinstance(usage := event.get("usage"), dict):
            self.usage = usage
        choices = event.get("choices")
        choice = choices[0] if isinstance(choices, list) and choices else None
        if not isinstance(choice, dict):
            return Piece()
        reason = choice.get("finish_reason")
        if reason and isinstance(reason, str):
            self.finish_reason, self.is_complete = reason, True
        message = choice.get("delta") or choice.get("message")
        return self._piece_of(message) if isinstance(message, dict) else Piece()

    def _error_in(self, event: dict[str, Any]) -> CompletionError:
        error = event.get("error")
        code = shown_code((error if isinstance(error, dict) else event).get("code"), key=self._key)
        named = f" ({code})" if code else ""
        return CompletionError(f"The language model broke off its answer with an error{named}.")

    def _piece_of(self, message: dict[str, Any]) -> Piece:
        content, refusal = message.get("content"), message.get("refusal")
        reasoning = message.get("reasoning_content") or message.get("reasoning")
        calls = message.get("tool_calls")
        if (
            type(content) is str
            and content.isascii()
            and "\0" not in content
            and self._splitter.is_over
            and not (reasoning or refusal or calls or self._half_character)
        ):
            return Piece(content)  # nearly every piece: half the work
        parts = parts_of(content)
        text = parts.text + parts_of(refusal).text
        thought = storable(parts_of(reasoning).text + parts.reasoning)
        tool_calls = self._with_indexes(calls)
        if not text:
            return Piece("", thought, tool_calls)
        if self._half_character or ord(text[-1]) in HIGH_SURROGATES:
            text, self._half_character = self._half_character + text, ""
            if ord(text[-1]) in HIGH_SURROGATES:
                text, self._half_character = text[:-1], text[-1]
        piece = self._splitter.feed(storable(text))
        return Piece(piece.text, thought + piece.reasoning, tool_calls)

    def _with_indexes(self, calls: Any) -> tuple[dict[str, Any], ...]:
        """The deltas of calls of tools, each with the number of its call as ``index``."""
        if not isinstance(calls, list):
            return ()
        numbered: list[dict[str, Any]] = []
        indexes = set()
        for place, call in enumerate(calls):
            if isinstance(call, dict):
                index = self._index_of(call, place if len(calls) > 1 else None)
                if index in indexes and not isinstance(call.get("index"), int):  # of the same id
                    index = self._call_count
                    self._call_count += 1
                indexes.add(index)
                numbered.append(call | {"index": index})
        return tuple(numbered)

    def _index_of(self, call: dict[str, Any], place: int | None) -> int:
        """Its own index. Without one a new id begins a call.

        Without an id either, it belongs to the call at its place, or to the last one if it came
        alone (``place`` None).
        """
        index, call_id = call.get("index"), call.get("id")
        if not isinstance(index, int):
            if isinstance(call_id, str) and call_id:
                index = self._call_indexes.setdefault(call_id, self._call_count)
            else:
                index = max(self._call_count - 1, 0) if place is None else place
        self._call_count = max(self._call_count, index + 1)
        return index


def parts_of(content: Any) -> Piece:
    """The text of a content: a string, or a list of parts, some of which may be reasoning."""
    if isinstance(content, str):
        return Piece(content)
    if not isinstance(content, list):
        return Piece()
    text, reasoning = "", ""
    for part in content:
        fields = {"text": part} if isinstance(part, str) else _as_object(part)
        text += parts_of(fields.get("text")).text
        reasoning += parts_of(fields.get("thinking")).text
    return Piece(text, reasoning)


def storable(text: str) -> str:
    """The text as PostgreSQL can store it: NUL and lone surrogates become U+FFFD."""
    if text.isascii() and "\0" not in text:
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").translate(REPLACED)


def _loads(text: str) -> Any:
    """Like ``json.loads``, with a tenth less work for a text without space around it."""
    try:
        value, end = RAW_DECODE(text)
    except ValueError:
        return json.loads(text)
    return value if end == len(text) else json.loads(text)


def _as_object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
