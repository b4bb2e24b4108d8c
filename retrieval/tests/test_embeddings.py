"""Embeddings over the wire: what is asked, what is kept, what goes on without its caller."""

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
from retrieval.tests.embedding_support import KEY, asked, expected
from retrieval.token_count import count_tokens

pytestmark = pytest.mark.usefixtures("fake")
LINE = "Error generating embeddings: "


def test_a_text_becomes_1536_numbers_asked_for_by_model_and_size(
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
    assert asked(fake) == [texts]


def test_vectors_that_come_in_another_order_are_put_in_their_places(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Lie("reordered")
    texts = ["one dog", "two cats", "three birds"]
    assert np.array_equal(
        embedding_service.get_embeddings_batch(texts), [expected(text) for text in texts]
    )


def test_no_texts_are_no_call(fake: FakeOpenAI) -> None:
    assert embedding_service.get_embeddings_batch([]) == []
    assert embedding_service.submit([]).result(0) == []
    assert asked(fake) == []


def test_a_lone_surrogate_and_a_blank_text_are_sent_as_the_service_can_take_them(
    fake: FakeOpenAI,
) -> None:
    embedding_service.get_embeddings_batch(["a \ud800 dog", "", " \n", "🦊"])
    assert asked(fake) == [["a \N{REPLACEMENT CHARACTER} dog", " ", " ", "🦊"]]


@pytest.mark.parametrize("text", ["word " * 9_000, "🦊" * 9_000, "<|endoftext|>" * 3_000])
def test_a_text_that_is_too_long_is_embedded_from_its_beginning(
    fake: FakeOpenAI, text: str
) -> None:
    fake.embeddings.count_tokens = count_tokens
    embedding_service.get_embedding(text)
    ((sent,),) = asked(fake)
    assert text.startswith(sent)
    assert 8_185 <= count_tokens(sent) <= 8_191


def test_many_texts_are_packed_below_the_limits_of_a_call(fake: FakeOpenAI) -> None:
    fake.embeddings.count_tokens = count_tokens
    long = ["word " * 5_000] * 70
    vectors = embedding_service.get_embeddings_batch(["dog", *long, "cat"])
    assert [len(texts) for texts in asked(fake)] == [58, 14]
    assert np.array_equal([vectors[0], vectors[71]], [expected("dog"), expected("cat")])


def test_no_call_has_more_than_2048_texts(fake: FakeOpenAI) -> None:
    texts = [f"{number}" for number in range(2_050)]
    assert np.array_equal(
        embedding_service.get_embeddings_batch(texts)[2_047:],
        [expected(text) for text in texts[2_047:]],
    )
    assert [len(texts) for texts in asked(fake)] == [2_048, 2]


def test_without_a_model_nothing_is_asked_and_nothing_logged(
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
    assert (asked(fake), caplog.records) == ([], [])


def test_changed_settings_are_used_by_the_next_call(fake: FakeOpenAI, settings: Settings) -> None:
    embedding_service.get_embedding("hello")
    settings.OPENAI_API_KEY = "sk-other"
    embedding_service.get_embedding("hello")
    with FakeOpenAI() as other:
        settings.OPENAI_BASE_URL = other.base_url
        embedding_service.get_embedding("hello")
        assert len(other.requests) == 1
    assert [one.headers["authorization"] for one in fake.requests] == [
        f"Bearer {KEY}",
        "Bearer sk-other",
    ]


def test_it_works_again_after_a_reset_and_leaves_no_thread() -> None:
    embedding_service.get_embedding("hello")
    embedding_service.reset()
    assert "embeddings" not in [thread.name for thread in threading.enumerate()]
    assert np.array_equal(embedding_service.get_embedding("hello"), expected("hello"))


def test_twenty_callers_at_once_share_one_thread_and_get_each_their_own(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Vectors(delay_s=0.2)
    texts = [f"number{number}" for number in range(20)]
    began = time.monotonic()
    with ThreadPoolExecutor(20) as pool:
        vectors = list(pool.map(embedding_service.get_embedding, texts))
    assert time.monotonic() - began < 2  # one after another it would be 4 s
    assert np.array_equal(vectors, [expected(text) for text in texts])
    assert [thread.name for thread in threading.enumerate()].count("embeddings") == 1


def test_a_call_goes_on_when_its_caller_stops_waiting(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Vectors(delay_s=0.3)
    call = embedding_service.submit(["hello"])

    async def wait_a_little() -> None:
        await asyncio.wait_for(asyncio.wrap_future(call), 0.1)  # which cancels what it waits for

    with pytest.raises(TimeoutError):
        asyncio.run(wait_a_little())
    assert not call.cancel()
    assert np.array_equal(call.result(2), [expected("hello")])
    assert [one.outcome for one in fake.requests] == ["answered"]


def test_a_reset_ends_what_still_runs(fake: FakeOpenAI) -> None:
    fake.embeddings.default = Vectors(delay_s=30)
    call = embedding_service.submit(["hello"])
    request = fake.wait_for(lambda: fake.requests)[0]
    embedding_service.reset()
    with pytest.raises(errors.EmbeddingError, match="the process is ending"):
        call.result(1)
    fake.wait_for(lambda: request.outcome == "client_gone")


def test_a_failure_is_one_line_whether_somebody_waits_or_not(
    fake: FakeOpenAI, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 0.5
    fake.embeddings.default = Refuse(500)
    with pytest.raises(errors.Unavailable):
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
