"""Embedding calls over HTTP: requests, order, batches, and calls without a waiting caller."""

import asyncio
import logging
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from pytest_django import Settings

from fake_openai import FakeOpenAI, Lie, Refuse, Vectors
from retrieval.embeddings import embedding_service, errors
from retrieval.tests.embedding_support import KEY, expected, texts_of_calls
from retrieval.token_count import count_tokens

pytestmark = pytest.mark.usefixtures("fake")
LINE = "Error generating embeddings: "


def test_a_text_is_sent_with_model_and_size_and_becomes_1536_numbers(
    fake: FakeOpenAI, caplog: pytest.LogCaptureFixture
) -> None:
    vector = embedding_service.get_embedding("My dog is called Biscuit.")
    assert vector.shape == (1536,)
    assert vector.dtype == np.float32
    assert np.array_equal(vector, expected("My dog is called Biscuit."))
    (request,) = fake.embeddings.requests
    assert request.fields["model"] == "text-embedding-3-small"
    assert request.fields["dimensions"] == 1536
    assert request.headers["authorization"] == f"Bearer {KEY}"
    assert caplog.records == []


def test_a_batch_keeps_its_order_and_length_in_one_call(fake: FakeOpenAI) -> None:
    texts = ["one dog", "two cats", "one dog", "three birds"]
    vectors = embedding_service.get_embeddings_batch(texts)
    assert np.array_equal(vectors, [expected(text) for text in texts])
    assert texts_of_calls(fake) == [texts]


def test_a_request_has_no_headers_beyond_plain_http(
    fake: FakeOpenAI, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("OPENAI_ORG_ID", "OPENAI_PROJECT_ID", "OPENAI_ADMIN_KEY"):
        monkeypatch.setenv(name, "from-the-environment")
    monkeypatch.setenv("OPENAI_CUSTOM_HEADERS", "X-Custom: from-the-environment")
    embedding_service.get_embedding("hello")
    (request,) = fake.embeddings.requests
    added = {"accept", "accept-encoding", "connection", "host", "user-agent"}  # by httpx2
    assert set(request.headers) == added | {"authorization", "content-length", "content-type"}


def test_vectors_are_returned_in_the_order_of_the_texts(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Lie("reordered")
    texts = ["one dog", "two cats", "three birds"]
    assert np.array_equal(
        embedding_service.get_embeddings_batch(texts), [expected(text) for text in texts]
    )


def test_no_texts_make_no_call(fake: FakeOpenAI) -> None:
    assert embedding_service.get_embeddings_batch([]) == []
    assert embedding_service.submit([]).result(0) == []
    assert texts_of_calls(fake) == []


def test_lone_surrogates_and_blank_texts_are_replaced_before_they_are_sent(
    fake: FakeOpenAI,
) -> None:
    embedding_service.get_embeddings_batch(["a \ud800 dog", "", " \n", "🦊"])
    assert texts_of_calls(fake) == [["a \N{REPLACEMENT CHARACTER} dog", " ", " ", "🦊"]]


@pytest.mark.parametrize("text", ["word " * 9_000, "🦊" * 9_000, "<|endoftext|>" * 3_000])
def test_only_the_beginning_of_a_long_text_is_embedded(fake: FakeOpenAI, text: str) -> None:
    fake.embeddings.count_tokens = count_tokens
    embedding_service.get_embedding(text)
    ((sent,),) = texts_of_calls(fake)
    assert text.startswith(sent)
    assert 8_185 <= count_tokens(sent) <= 8_191


def test_many_texts_are_batched_below_the_token_limit(fake: FakeOpenAI) -> None:
    fake.embeddings.count_tokens = count_tokens
    long = ["word " * 5_000] * 70
    vectors = embedding_service.get_embeddings_batch(["dog", *long, "cat"])
    assert [len(texts) for texts in texts_of_calls(fake)] == [58, 14]
    assert np.array_equal([vectors[0], vectors[71]], [expected("dog"), expected("cat")])


def test_no_call_has_more_than_2048_texts(fake: FakeOpenAI) -> None:
    texts = [f"{number}" for number in range(2_050)]
    assert np.array_equal(
        embedding_service.get_embeddings_batch(texts)[2_047:],
        [expected(text) for text in texts[2_047:]],
    )
    assert [len(texts) for texts in texts_of_calls(fake)] == [2_048, 2]


def test_without_a_model_no_call_is_made_and_nothing_is_logged(
    fake: FakeOpenAI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    assert embedding_service.model_name() == "text-embedding-3-small"
    for name, value in (("OPENAI_API_KEY", ""), ("EMBEDDINGS", "none")):
        setattr(settings, name, value)
        assert embedding_service.model_name() is None
        assert embedding_service.get_embeddings_batch([]) == []
        with pytest.raises(errors.EmbeddingsNotConfigured):
            embedding_service.submit(["hello"])
        with pytest.raises(errors.EmbeddingsNotConfigured):
            embedding_service.get_embedding("hello")
    assert (texts_of_calls(fake), caplog.records) == ([], [])


def test_the_next_call_uses_changed_settings(fake: FakeOpenAI, settings: Settings) -> None:
    embedding_service.get_embedding("hello")
    settings.OPENAI_API_KEY = "sk-other"
    embedding_service.get_embedding("hello")
    with FakeOpenAI() as other:
        settings.OPENAI_BASE_URL = other.base_url
        embedding_service.get_embedding("hello")
        assert len(other.requests) == 1
    assert [request.headers["authorization"] for request in fake.requests] == [
        f"Bearer {KEY}",
        "Bearer sk-other",
    ]


def test_a_reset_closes_the_connections_and_the_next_call_works(fake: FakeOpenAI) -> None:
    embedding_service.get_embedding("hello")
    embedding_service.reset()
    fake.wait_for(lambda: not fake._connections)
    assert np.array_equal(embedding_service.get_embedding("hello"), expected("hello"))


def test_twenty_concurrent_callers_share_one_thread_and_get_their_own_vectors(
    fake: FakeOpenAI,
) -> None:
    fake.embeddings.default = Vectors(delay_s=0.2)
    texts = [f"number{number}" for number in range(20)]
    embedding_service.get_embedding("loads the tokenizer and the client")
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        vectors = list(pool.map(embedding_service.get_embedding, texts))
    assert time.monotonic() - began < 2  # one after another it would be 4 s
    assert np.array_equal(vectors, [expected(text) for text in texts])
    assert [thread.name for thread in threading.enumerate()].count("event loop") == 1


def test_a_call_goes_on_if_its_caller_stops_waiting(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Vectors(delay_s=0.3)
    call = embedding_service.submit(["hello"])

    async def wait_a_little() -> None:
        await asyncio.wait_for(asyncio.wrap_future(call), 0.1)  # which cancels what it waits for

    with pytest.raises(TimeoutError):
        asyncio.run(wait_a_little())
    assert not call.cancel()
    assert np.array_equal(call.result(2), [expected("hello")])
    assert [request.outcome for request in fake.requests] == ["answered"]


def test_a_reset_cancels_running_calls(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Vectors(delay_s=30)
    call = embedding_service.submit(["hello"])
    request = fake.wait_for(lambda: fake.requests)[0]
    embedding_service.reset()
    with pytest.raises(errors.EmbeddingError, match="the process is ending"):
        call.result(1)
    fake.wait_for(lambda: request.outcome == "client_gone")


def test_a_failure_is_logged_once_with_or_without_a_waiting_caller(
    fake: FakeOpenAI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1.5
    fake.embeddings.default = Refuse(500)
    with pytest.raises(errors.ServiceUnavailable):
        embedding_service.get_embedding("hello")
    assert caplog.record_tuples == [
        (
            "retrieval.embeddings.embedding_service",
            logging.ERROR,
            f"{LINE}the service failed: status 500",
        )
    ]
    embedding_service.submit(["hello"])
    fake.wait_for(lambda: len(caplog.records) == 2)
