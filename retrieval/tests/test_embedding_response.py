"""Responses that the fake server cannot send, and the forms of Retry-After."""

import json
import math
import time
from email.utils import formatdate
from typing import Any

import numpy as np
import pytest

from retrieval.embeddings.response import (
    PartlyUsable,
    parse_json,
    parse_retry_after_s,
    used_tokens,
    vectors_of,
)
from retrieval.vectors import Vector

GOOD = [0.0] * 1535 + [1.0]


def parse_vectors(body: bytes, *, count: int) -> list[Vector]:
    return vectors_of(parse_json(body), count=count)


def answer(*vectors: Any, indexes: list[Any] | None = None) -> bytes:
    items = [
        {"index": index, "embedding": vector}
        for index, vector in zip(indexes or range(9), vectors, strict=False)
    ]
    return json.dumps({"data": items}).encode()


def test_plain_numbers_are_parsed_like_base64() -> None:
    (vector,) = parse_vectors(answer(GOOD), count=1)
    assert vector.dtype == np.float32
    assert np.array_equal(vector, GOOD)
    assert parse_vectors(answer([1] * 1536), count=1)[0].sum() == 1536


@pytest.mark.parametrize(
    ("vector", "words"),
    [
        ([*GOOD[1:], True, "1"][-1536:], "a vector holds what is no number"),
        ([True] * 1536, "a vector holds what is no number"),
        ([None] * 1536, "a vector holds what is no number"),
        ([10**400, *GOOD[1:]], "a vector holds what is no number"),
        ([[1.0], *GOOD[1:]], "a vector cannot be read"),
        ([GOOD], "a vector has not 1536 numbers"),
        ([], "a vector has not 1536 numbers"),
        ("AAAAAAA", "a vector cannot be read"),
        ("é", "a vector cannot be read"),
        ("AAAA", "a vector cannot be read"),
        ("AAAAAA==", "a vector has not 1536 numbers"),
        (None, "a vector holds what is no number"),
        ([math.nan, *GOOD[1:]], "a vector is all zero or not finite"),
        ([1e39, *GOOD[1:]], "a vector is all zero or not finite"),
        ([1e-30] * 1536, "a vector is all zero or not finite"),
        ([1e30] * 1536, "a vector is all zero or not finite"),
    ],
    ids=str,
)
def test_a_vector_that_is_unusable_for_cosine_is_refused(vector: Any, words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        parse_vectors(answer(GOOD, vector), count=2)


@pytest.mark.parametrize(
    ("indexes", "words"),
    [
        ([0, None], "a vector has no index"),
        ([0, True], "a vector has no index"),
        ([0, 1.0], "a vector has no index"),
        ([0, 2], "its indexes are not those of the texts"),
        ([-1, 0], "its indexes are not those of the texts"),
        ([1, 1], "its indexes are not those of the texts"),
    ],
)
def test_each_index_must_occur_once(indexes: list[Any], words: str) -> None:
    with pytest.raises(ValueError, match=f"^{words}$"):
        parse_vectors(answer(GOOD, GOOD, indexes=indexes), count=2)


def test_an_additional_vector_is_refused_even_with_the_right_indexes() -> None:
    with pytest.raises(ValueError, match=r"^2 vectors for 1 texts$"):
        parse_vectors(answer(GOOD, GOOD, indexes=[0, 0]), count=1)


@pytest.mark.parametrize(
    "body", [b"", b"\xff", b"[" * 100_000, b"{", b"null", b"[]", b'{"data":{}}', b'{"data":[1]}']
)
def test_a_body_without_a_list_of_vectors_is_refused(body: bytes) -> None:
    with pytest.raises(ValueError, match=r"^it (is not JSON|holds no list of vectors)$"):
        parse_vectors(body, count=1)


def test_retry_after_is_parsed_in_all_its_forms() -> None:
    assert parse_retry_after_s({"retry-after": "2"}) == 2
    assert parse_retry_after_s({"retry-after": "0.5"}) == 0.5
    assert parse_retry_after_s({"retry-after-ms": "1500", "retry-after": "2"}) == 1.5
    assert parse_retry_after_s(
        {"retry-after": formatdate(time.time() + 60, usegmt=True)}
    ) == pytest.approx(60, abs=2)
    assert parse_retry_after_s({"retry-after": formatdate(time.time() - 60, usegmt=True)}) == 0
    for value in ("", "soon", "nan", "inf", "-"):
        assert parse_retry_after_s({"retry-after": value}) is None
    assert parse_retry_after_s({"retry-after": "-3"}) == 0
    assert parse_retry_after_s({}) is None


def test_vectors_without_any_index_are_taken_in_order() -> None:
    other = [1.0] * 1536
    body = json.dumps({"data": [{"embedding": GOOD}, {"embedding": other}]}).encode()
    assert np.array_equal(parse_vectors(body, count=2), [GOOD, other])
    with pytest.raises(ValueError, match=r"^2 vectors for 3 texts$"):
        parse_vectors(body, count=3)


def test_the_usable_vectors_of_an_answer_come_with_the_error() -> None:
    with pytest.raises(PartlyUsable) as raised:
        parse_vectors(answer(GOOD, [0.0] * 1536, GOOD), count=3)
    assert sorted(raised.value.usable) == [0, 2]


@pytest.mark.parametrize(
    ("usage", "tokens"),
    [
        ({"prompt_tokens": 7, "total_tokens": 7}, 7),
        ({"total_tokens": True}, None),
        ({"total_tokens": -1}, None),
        ({"total_tokens": "7"}, None),
        ([], None),
        (None, None),
    ],
    ids=str,
)
def test_only_a_whole_number_of_tokens_is_believed(usage: Any, tokens: int | None) -> None:
    assert used_tokens({"data": [], "usage": usage}) == tokens
