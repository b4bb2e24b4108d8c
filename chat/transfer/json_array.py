"""Reads the objects of a large JSON array one by one, with the memory that the largest one needs.

By the standard library's parser, which is faster than streaming ones and safe for any nesting:
docs/decisions/0020-imports.md.
"""

import json
import re
from collections.abc import Iterator
from io import TextIOWrapper
from typing import IO, Any, cast

from chat.transfer.refusals import ImportRefusedError

CHUNK_CHARS = 1_000_000
# Of one object. The longest conversations of people have some 20 MB.
MAX_OBJECT_CHARS = 32_000_000
# Braces and brackets in it: Python takes up to 100 bytes for each empty one.
MAX_OBJECT_PARTS = 1_000_000
SPACE = re.compile(r"[ \t\n\r]*")
decode = json.JSONDecoder().raw_decode


def read_objects(stream: IO[bytes]) -> Iterator[dict[str, Any]]:
    """The objects of the array that the UTF-8 stream holds, to its end.

    Raises ImportRefusedError: not such an array, cut, or an object over MAX_OBJECT_CHARS.
    """
    text = TextIOWrapper(stream, encoding="utf-8-sig")
    try:
        yield from _Reader(text).objects()
    except UnicodeDecodeError as error:
        raise ImportRefusedError("the file is not UTF-8") from error
    finally:
        text.detach()


class _Reader:
    """A buffer of the text that is not parsed yet."""

    def __init__(self, text: TextIOWrapper) -> None:
        self.text, self.buffer, self.at = text, "", 0

    def objects(self) -> Iterator[dict[str, Any]]:
        if self._next_char() != "[":
            raise ImportRefusedError("the file is no JSON array of conversations")
        self.at += 1
        is_first = True
        while (char := self._next_char()) != "]":
            if not is_first:
                self._expect(",", char)
                char = self._next_char()
            is_first = False
            if char != "{":
                raise ImportRefusedError("the file is no JSON array of conversations, or cut")
            yield self._object()
        self.at += 1
        if self._next_char():
            raise ImportRefusedError("the file goes on after the end of its JSON")

    def _expect(self, expected: str, char: str) -> None:
        if char != expected:
            raise ImportRefusedError("the file is no JSON, or it is cut")
        self.at += 1

    def _next_char(self) -> str:
        """The next character that is no space, "" at the end."""
        while True:
            self.at = SPACE.match(self.buffer, self.at).end()  # type: ignore[union-attr] # ""
            if self.at < len(self.buffer):
                return self.buffer[self.at]
            if not self._read_more(CHUNK_CHARS):
                return ""

    def _object(self) -> dict[str, Any]:
        """Parses what there is; while it does not end, reads as much again."""
        while True:
            try:
                parsed, self.at = decode(self.buffer, self.at)
            except RecursionError:
                raise ImportRefusedError("a conversation is nested too deeply") from None
            except ValueError:
                if not self._read_more(max(len(self.buffer) - self.at, CHUNK_CHARS)):
                    raise ImportRefusedError("the file is no JSON, or it is cut") from None
            else:
                return cast("dict[str, Any]", parsed)

    def _read_more(self, chars: int) -> bool:
        self.buffer = self.buffer[self.at :]
        self.at = 0
        parts = self.buffer.count("{") + self.buffer.count("[")
        if len(self.buffer) > MAX_OBJECT_CHARS or parts > MAX_OBJECT_PARTS:
            raise ImportRefusedError("a conversation is too large, or the file is no JSON")
        more = self.text.read(chars)
        self.buffer += more
        return bool(more)
