"""Parses the responses of an embeddings service: every vector checked and in its place."""

import base64
import json
import math
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import numpy as np

from retrieval.vectors import DIMENSIONS, Vector


class PartlyUsable(ValueError):
    """Some vectors are not valid; ``usable`` has the others, by the place of their text."""

    def __init__(self, reason: str, usable: dict[int, Vector]) -> None:
        super().__init__(reason)
        self.usable = usable


def parse_json(body: bytes) -> Any:
    """Raises ValueError if it is none."""
    try:
        return json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None


def used_tokens(answer: Any) -> int | None:
    """How many tokens the service says that it has used; None if it does not say."""
    usage = answer.get("usage") if isinstance(answer, dict) else None
    tokens = usage.get("total_tokens") if isinstance(usage, dict) else None
    return tokens if type(tokens) is int and tokens >= 0 else None


def vectors_of(answer: Any, *, count: int) -> list[Vector]:
    """The ``count`` vectors of a response, in the order of the texts, whatever order they came in.

    Vectors without any ``index`` are taken in order. Raises PartlyUsable, or ValueError if it is
    not clear which is whose. Its message quotes nothing.
    """
    vectors: dict[int, Vector] = {}
    unusable: ValueError | None = None
    for index, item in _by_index(_items(answer), count=count).items():
        try:
            vectors[index] = _vector(item.get("embedding"))
        except ValueError as error:
            unusable = error
    if unusable:
        raise PartlyUsable(str(unusable), vectors)
    return [vectors[index] for index in range(count)]


def parse_retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How many seconds the service asks clients to wait. None if it does not ask."""
    try:
        # The first is OpenAI's own header, the second is RFC 9110, 10.2.3.
        if milliseconds := headers.get("retry-after-ms"):
            return _positive(float(milliseconds) / 1000)
        value = headers.get("retry-after", "")
        date = parsedate_tz(value)
        return _positive(mktime_tz(date) - time.time() if date else float(value))
    except (ValueError, OverflowError):
        return None


def _positive(seconds: float) -> float | None:
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _items(answer: Any) -> list[dict[str, Any]]:
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("it holds no list of vectors")
    return items


def _by_index(items: list[dict[str, Any]], *, count: int) -> dict[int, dict[str, Any]]:
    if len(items) != count:
        raise ValueError(f"{len(items)} vectors for {count} texts")
    if not any("index" in item for item in items):  # Gemini's endpoint
        return dict(enumerate(items))
    by_index = {_index(item): item for item in items}
    if set(by_index) != set(range(count)):
        raise ValueError("its indexes are not those of the texts")
    return by_index


def _index(item: dict[str, Any]) -> int:
    index = item.get("index")
    if type(index) is not int:  # bool is a subclass of int
        raise ValueError("a vector has no index")
    return index


def _vector(embedding: Any) -> Vector:
    numbers = _numbers(embedding)
    if numbers.shape != (DIMENSIONS,):
        raise ValueError(f"a vector has not {DIMENSIONS} numbers")
    with np.errstate(all="ignore"):
        vector = numbers.astype(np.float32)
        squared_length = float(np.dot(vector, vector))
    # Excludes NaN, infinity, all zeros, and numbers so large or small that PostgreSQL's cosine
    # would be one of these.
    if not 0 < squared_length < math.inf:
        raise ValueError("a vector is all zero or not finite")
    return vector


def _numbers(embedding: Any) -> "np.ndarray[Any, Any]":
    """The numbers: from base64, which is requested and ten times faster, or from a list."""
    try:
        if isinstance(embedding, str):
            return np.frombuffer(base64.b64decode(embedding, validate=True), "<f4")
        numbers = np.array(embedding)
    except ValueError:  # not base64, not a multiple of four bytes, or lists of unequal length
        raise ValueError("a vector cannot be read") from None
    if numbers.dtype.kind not in "iuf":
        raise ValueError("a vector holds what is no number")
    return numbers
