"""Meaningful vectors, wrong answers, and OpenAI's limits."""

import json
import math
import time
from typing import Any, get_args

import openai
import pytest

from fake_openai import (
    Behaviour,
    CutAfter,
    Empty,
    FakeOpenAI,
    Garbled,
    Hang,
    Html,
    Lie,
    LieKind,
    Refuse,
    Vectors,
)
from fake_openai.tests.support import client_of, json_of, read_answer, sent_request
from fake_openai.vectors import vector_of

PATH = "/v1/embeddings"


def cosine(first: list[float], second: list[float]) -> float:
    return sum(a * b for a, b in zip(first, second, strict=True))


def request_vectors(fake: FakeOpenAI, inputs: Any, **more: Any) -> Any:
    """The JSON of the answer, which may contain NaN."""
    body = {"model": "text-embedding-3-small", "input": inputs} | more
    with sent_request(fake, PATH, json.dumps(body).encode()) as sock:
        sock.settimeout(5)
        return json_of(read_answer(sock)[0])


def test_base64_and_floats_are_the_same_numbers() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        texts = ["My dog is called Biscuit.", "¿Qué tal?"]
        by_default = client.embeddings.create(model="m", input=texts)
        floats = client.embeddings.create(model="m", input=texts, encoding_format="float")
        assert [request.body["encoding_format"] for request in fake.embeddings.requests] == [
            "base64",
            "float",
        ]
        assert fake.embeddings.requests[0].texts == texts
    assert [item.embedding for item in by_default.data] == [item.embedding for item in floats.data]
    assert {len(item.embedding) for item in floats.data} == {1_536}
    assert by_default.usage.prompt_tokens == 10


def test_texts_with_shared_words_are_similar() -> None:
    biscuit = vector_of("My dog is called Biscuit.", 1_536)
    assert cosine(biscuit, vector_of("What is the dog called?", 1_536)) > 0.5
    assert cosine(biscuit, vector_of("DOGS! Biscuit?", 1_536)) > 0.5
    assert abs(cosine(biscuit, vector_of("The weather was rainy in Paris.", 1_536))) < 0.2
    assert math.isclose(cosine(biscuit, biscuit), 1)


def test_texts_without_words_are_equal_and_sizes_are_respected() -> None:
    assert vector_of("!?", 8) == vector_of(" 🦊 ", 8)
    with FakeOpenAI() as fake:
        answer = request_vectors(fake, ["a", "b"], dimensions=256)
    assert [len(item["embedding"]) for item in answer["data"]] == [256, 256]


def test_a_hundred_texts_are_fast() -> None:
    texts = [
        f"Text number {number} about the dog, the boat and {number * 7} biscuits." * 5
        for number in range(100)
    ]
    with FakeOpenAI() as fake, client_of(fake) as client:
        before_s = time.process_time()
        client.embeddings.create(model="m", input=texts)
        used_s = time.process_time() - before_s
    assert used_s < 1  # takes 0.1 s of CPU, with the client's, on an idle machine


@pytest.mark.parametrize("encoding", ["float", "base64"])
@pytest.mark.parametrize("kind", get_args(LieKind))
def test_every_lie_works_in_both_encodings(kind: LieKind, encoding: str) -> None:
    with FakeOpenAI() as fake:
        true = request_vectors(fake, ["one", "two", "three"], encoding_format=encoding)["data"]
        fake.embeddings.script(Lie(kind))
        wrong = request_vectors(fake, ["one", "two", "three"], encoding_format=encoding)["data"]
    # As JSON, because NaN is not equal to itself.
    assert json.dumps(wrong) != json.dumps(true)
    assert len(wrong) == {"too_few": 2, "too_many": 4}.get(kind, 3)
    if kind == "reordered":
        assert sorted(wrong, key=lambda item: item["index"]) == true


@pytest.mark.parametrize(
    ("kind", "is_so"),
    [
        ("nan", lambda vector: math.isnan(vector[0])),
        ("infinite", lambda vector: math.isinf(vector[0])),
        ("zero", lambda vector: not any(vector)),
        ("wrong_size", lambda vector: len(vector) == 1_537),
        ("not_numbers", lambda vector: vector == ["not", "a", "number"]),
    ],
)
def test_a_lie_reaches_openais_client(kind: LieKind, is_so: Any) -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.embeddings.default = Lie(kind)
        assert is_so(client.embeddings.create(model="m", input=["one"]).data[0].embedding)


def test_an_index_is_duplicated() -> None:
    with FakeOpenAI() as fake:
        fake.embeddings.default = Lie("duplicate_index")
        assert [item["index"] for item in request_vectors(fake, ["one", "two"])["data"]] == [0, 0]
        assert [item["index"] for item in request_vectors(fake, "one")["data"]] == [0, 0]


def test_a_batch_with_a_refused_text_is_refused_entirely() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.embeddings.refuse_text("poison")
        with pytest.raises(openai.BadRequestError):
            client.embeddings.create(model="m", input=["good", "some poison here", "good"])
        assert len(client.embeddings.create(model="m", input=["good", "good"]).data) == 2


@pytest.mark.parametrize(
    ("inputs", "code"),
    [
        ("", None),
        (["fine", ""], None),
        ([], None),
        (None, None),
        (["fine", 5], None),
        (["x"] * 2_049, None),
        ("word " * 6_302, None),
        (["word " * 5_000] * 47, "max_tokens_per_request"),
    ],
)
def test_openais_limits_hold(inputs: Any, code: str | None) -> None:
    with FakeOpenAI() as fake:
        error = request_vectors(fake, inputs)["error"]
    assert error["code"] == code
    assert error["type"] in ("invalid_request_error", "max_tokens_per_request")


def test_requests_at_the_limits_pass_and_the_token_counter_is_replaceable() -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        assert (
            len(client.embeddings.create(model="m", input=["word"] * 2_048, dimensions=8).data)
            == 2_048
        )
        client.embeddings.create(model="m", input="word " * 6_301)
        client.embeddings.create(model="m", input=[[1, 2, 3], [4]])
        fake.embeddings.count_tokens = len
        with pytest.raises(openai.BadRequestError, match="8193 tokens"):
            client.embeddings.create(model="m", input="w" * 8_193)


@pytest.mark.parametrize(
    ("behaviour", "error"),
    [
        (Refuse(503), openai.InternalServerError),
        (CutAfter(), openai.APIConnectionError),
        (Hang(), openai.APITimeoutError),
        # Not openai.OpenAIError: the product must handle these too.
        (Html(), AttributeError),
        (Garbled(), json.JSONDecodeError),
        (Empty(), ValueError),
    ],
)
def test_the_shared_misbehaviours_work_for_embeddings(
    behaviour: Behaviour, error: type[Exception]
) -> None:
    with FakeOpenAI() as fake, client_of(fake) as client:
        fake.embeddings.default = behaviour
        with pytest.raises(error):
            client.with_options(timeout=0.2).embeddings.create(model="m", input="x")


def test_vectors_are_delayed() -> None:
    with FakeOpenAI() as fake:
        fake.embeddings.default = Vectors(delay_s=0.1)
        assert len(request_vectors(fake, "x")["data"]) == 1
        assert (fake.embeddings.requests[0].seconds or 0) >= 0.1
