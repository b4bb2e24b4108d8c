"""Read what an embeddings service sent back: every vector in its place, or none. A wrong one would be stored."""

import base64
import json
import math
import time
from collections.abc import Mapping
from email.utils import mktime_tz, parsedate_tz
from typing import Any

import numpy as np

from retrieval.embeddings.vectors import DIMENSIONS, Vector


def vectors_in(body: bytes, *, count: int) -> list[Vector]:
    """The ``count`` vectors of an answer, in the order of the texts, whatever order they came in.

    Raises ValueError, in words without content, for anything but one usable vector a text.
    """
    items = _items(body)
    if len(items) != count:
        raise ValueError(f"{len(items)} vectors for {count} texts")
    by_index = {_index(item): item for item in items}
    if set(by_index) != set(range(count)):
        raise ValueError("its indexes are not those of the texts")
    return [_vector(by_index[index].get("embedding")) for index in range(count)]


def retry_after_s(headers: Mapping[str, str]) -> float | None:
    """How many seconds the service wants to be left alone, or None where it does not say."""
    try:
        if milliseconds := headers.get(
            "retry-after-ms"
        ):  # OpenAI's own; the other is RFC 9110, 10.2.3
            return _usable(float(milliseconds) / 1000)
        value = headers.get("retry-after", "")
        date = parsedate_tz(value)
        return _usable(mktime_tz(date) - time.time() if date else float(value))
    except (ValueError, OverflowError):
        return None


def error_in(body: bytes) -> tuple[str, str]:
    """The error's ``code`` and ``type`` in the answer of a service that refuses; '' for what is not there."""
    try:
        error = json.loads(body)["error"]
        return str(error.get("code") or ""), str(error.get("type") or "")
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return "", ""  # a page of HTML, or an error in another form


def _usable(seconds: float) -> float | None:
    return max(seconds, 0.0) if math.isfinite(seconds) else None


def _items(body: bytes) -> list[dict[str, Any]]:
    try:
        answer = json.loads(body)
    except (ValueError, RecursionError):
        raise ValueError("it is not JSON") from None
    items = answer.get("data") if isinstance(answer, dict) else None
    if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
        raise ValueError("it holds no list of vectors")
    return items


def _index(item: dict[str, Any]) -> int:
    index = item.get("index")
    if type(index) is not int:  # True is an int, too
        raise ValueError("a vector has no index")
    return index


def _vector(sent: Any) -> Vector:
    numbers = _numbers(sent)
    if numbers.shape != (DIMENSIONS,):
        raise ValueError(f"a vector has not {DIMENSIONS} numbers")
    with np.errstate(all="ignore"):
        vector = numbers.astype(np.float32)
        square = float(np.dot(vector, vector))
    # NaN, infinity, all zero, or so far out that PostgreSQL's cosine would be one of these.
    if not 0 < square < math.inf:
        raise ValueError("a vector is all zero or not finite")
    return vector


def _numbers(sent: Any) -> "np.ndarray[Any, Any]":
    """The base64 that was asked for, a tenth of the work, or the list that some servers send all the same."""
    try:
        if isinstance(sent, str):
            return np.frombuffer(base64.b64decode(sent, validate=True), "<f4")
        numbers = np.array(sent)
    except ValueError:  # not base64, not whole numbers of four bytes, or lists of unequal length
        raise ValueError("a vector cannot be read") from None
    if numbers.dtype.kind not in "iuf":
        raise ValueError("a vector holds what is no number")
    return numbers
