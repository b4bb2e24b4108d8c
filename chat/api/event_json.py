"""JSON for a line of an event stream, whatever a client takes for the end of a line."""

import json
from typing import Any

# json.dumps would make one for each event.
SPACED = json.JSONEncoder(ensure_ascii=False)
COMPACT = json.JSONEncoder(ensure_ascii=False, separators=(",", ":"))
# Some clients end a line, or a match of ".", at these: Python's splitlines, JavaScript's patterns.
LINE_ENDS = [0x85, 0x2028, 0x2029]
# A half of a pair, which has no UTF-8: a model's server may send the other half in the next piece.
SURROGATES = range(0xD800, 0xE000)
ESCAPES = {code: f"\\u{code:04x}" for code in [*LINE_ENDS, *SURROGATES]}


def encode(value: Any) -> str:
    """The value as JSON that can be sent as one line of UTF-8."""
    return _escaped(SPACED.encode(value))


def encode_compact(value: Any) -> str:
    """The same without spaces, as OpenAI's API sends it."""
    return _escaped(COMPACT.encode(value))


def _escaped(text: str) -> str:
    return text if text.isascii() else text.translate(ESCAPES)
