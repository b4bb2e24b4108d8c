"""A failing service: which calls are retried, for how long, and that answers are checked."""

import random
import time
import traceback
from itertools import pairwise
from typing import get_args

import numpy as np
import pytest
from pytest_django import Settings

from fake_openai import (
    Behaviour,
    CutAfter,
    Drop,
    Empty,
    ErrorEvent,
    FakeOpenAI,
    Garbled,
    Hang,
    HangAfter,
    Html,
    Lie,
    LieKind,
    NoDimensions,
    Refuse,
    Trickle,
    Vectors,
    WithoutIndex,
)
from retrieval.embeddings import embedding_service, errors, openai_embeddings
from retrieval.tests.embedding_support import KEY, expected
from tests.support import PATIENCE_S

pytestmark = pytest.mark.usefixtures("fake")
TEXT = "a canary called Zyxwv"
LIES = [Lie(kind) for kind in get_args(LieKind) if kind != "reordered"]
NONSENSE: list[Behaviour] = [Html(), Garbled(), Empty(), ErrorEvent(message=f"{KEY} {TEXT}"), *LIES]
AWAY: list[Behaviour] = [
    *map(Refuse, (408, 409, 429, 500, 529)),
    Html(status=502), Drop(), Drop(reset=False), CutAfter(), CutAfter(reset=False),
]  # fmt: skip


def failure(text: str = TEXT) -> errors.EmbeddingError:
    with pytest.raises(errors.EmbeddingError) as raised:
        embedding_service.get_embedding(text)
    return raised.value


@pytest.mark.parametrize("behaviour", [*AWAY, *NONSENSE[:4], Lie("too_few")], ids=repr)
def test_a_temporary_failure_is_retried(fake: FakeOpenAI, behaviour: Behaviour) -> None:
    fake.embeddings.script(behaviour)
    assert embedding_service.get_embedding(TEXT) == pytest.approx(expected(TEXT))
    assert len(fake.requests) == 2


@pytest.mark.parametrize(
    ("behaviour", "may_be_billed"),
    [(Garbled(), True), (Drop(), True), (CutAfter(), True), (Refuse(504), True), (Hang(), True),
     (Refuse(500), False), (Refuse(429), False), (Refuse(400), False), (None, False)],
    ids=repr,
)  # fmt: skip
def test_a_call_may_be_billed_unless_the_service_has_refused_it(
    fake: FakeOpenAI, settings: Settings, behaviour: Behaviour | None, may_be_billed: bool
) -> None:
    if isinstance(behaviour, Hang):
        settings.EMBEDDING_TIMEOUT_S = 0.5
    fake.embeddings.default = behaviour
    if behaviour is None:  # no server listens there
        settings.OPENAI_BASE_URL = "http://127.0.0.1:9/v1"
    with pytest.raises(errors.EmbeddingError) as raised:
        embedding_service.submit([TEXT], retries=False).result(PATIENCE_S)
    assert raised.value.may_be_billed is may_be_billed


@pytest.mark.parametrize("behaviour", NONSENSE, ids=repr)
def test_an_invalid_answer_is_never_returned(
    fake: FakeOpenAI, settings: Settings, behaviour: Behaviour
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1.5
    fake.embeddings.default = behaviour
    with pytest.raises(errors.ServiceUnavailable, match="the service's answer was not usable: "):
        embedding_service.get_embeddings_batch(["one", "two", TEXT])


def test_pauses_between_retries_grow_and_are_random(fake: FakeOpenAI, settings: Settings) -> None:
    settings.EMBEDDING_TIMEOUT_S = 2.5
    fake.embeddings.default = Refuse(503)
    random.seed(4)
    failure()
    moments = [request.arrived_at for request in fake.requests]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    random.seed(4)
    wanted = [random.uniform(0, max_pause_s) for max_pause_s in (0.2, 0.4, 0.8, 1.6, 2.0, 2.0)]
    assert all(gap > pause - 0.05 for gap, pause in zip(gaps, wanted, strict=False)), gaps
    assert len(gaps) >= 3
    assert max(gaps) > 0.4


def test_a_service_that_restarts_within_the_deadline_is_used(fake: FakeOpenAI) -> None:
    fake.stop()
    call = embedding_service.submit([TEXT])
    time.sleep(0.3)
    assert not call.done()
    fake.start()
    assert call.result()[0] == pytest.approx(expected(TEXT))


def test_an_unreachable_service_is_a_failure(fake: FakeOpenAI, settings: Settings) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1.5
    fake.stop()
    error = failure()
    fake.start()
    assert "the service cannot be reached (ConnectionRefusedError)" in str(error)


@pytest.mark.parametrize("behaviour", [Hang(), HangAfter(), Trickle(every_s=0.05)], ids=repr)
def test_the_deadline_limits_the_whole_call_and_closes_the_connection(
    fake: FakeOpenAI, settings: Settings, behaviour: Behaviour
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1.5
    fake.embeddings.script(Refuse(500), behaviour)
    error = failure()
    assert (type(error), str(error)) == (
        errors.ServiceUnavailable,
        "no answer within 1.5 s; before: the service failed: status 500",
    )
    fake.wait_for(lambda: fake.requests[-1].outcome == "client_gone")


def test_each_call_of_a_batch_has_its_own_deadline(fake: FakeOpenAI, settings: Settings) -> None:
    settings.EMBEDDING_TIMEOUT_S = 3.0
    fake.embeddings.default = Vectors(delay_s=1.6)
    assert len(embedding_service.get_embeddings_batch(["🦊" * 2_000] * 50)) == 50
    assert len(fake.requests) == 2


def test_retry_after_is_obeyed(fake: FakeOpenAI) -> None:
    fake.embeddings.script(Refuse(429, headers={"Retry-After": "0.6"}))
    fake.embeddings.script(Refuse(429, headers={"Retry-After-Ms": "600", "Retry-After": "60"}))
    embedding_service.get_embedding(TEXT)
    first, second, third = [request.arrived_at for request in fake.requests]
    assert second - first >= 0.6
    assert third - second >= 0.6


@pytest.mark.parametrize(
    ("status", "kind"), [(429, errors.RateLimited), (503, errors.ServiceUnavailable)]
)
def test_retry_after_past_the_deadline_fails_at_once_and_is_reported(
    fake: FakeOpenAI, status: int, kind: type[errors.EmbeddingError]
) -> None:
    fake.embeddings.default = Refuse(status, headers={"Retry-After": "6"})
    began = time.monotonic()
    error = failure()
    assert time.monotonic() - began < 1
    assert (type(error), error.retry_after_s) == (kind, 6.0)
    assert len(fake.requests) == 1


@pytest.mark.parametrize(
    ("refusal", "kind", "words"),
    [
        (
            Refuse(401),
            errors.KeyRefused,
            "the service refused the key: status 401 (invalid_api_key)",
        ),
        (Refuse(403), errors.KeyRefused, "the service refused the key: status 403"),
        (
            Refuse(429, "insufficient_quota"),
            errors.QuotaExceeded,
            "the account's quota is used up: status 429 (insufficient_quota)",
        ),
        (Refuse(400), errors.InputRefused, "the service refused the text: status 400"),
        (Refuse(413), errors.InputRefused, "the service refused the text: status 413"),
        (Refuse(422), errors.InputRefused, "the service refused the text: status 422"),
        (
            Refuse(404, "model_not_found"),
            errors.EmbeddingError,
            "the service refused: status 404 (model_not_found)",
        ),
    ],
)
def test_a_permanent_failure_is_not_retried(
    fake: FakeOpenAI, refusal: Refuse, kind: type[errors.EmbeddingError], words: str
) -> None:
    fake.embeddings.default = refusal
    error = failure()
    assert (type(error), str(error)) == (kind, words)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_neither_key_nor_text_appears_in_a_log_or_traceback(
    fake: FakeOpenAI, settings: Settings, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings.EMBEDDING_TIMEOUT_S = 1.5
    fake.embeddings.default = Refuse(
        status,
        code=KEY,
        message=f"Wrong: {KEY[:8]}****{KEY[-4:]}; {TEXT}",
        headers={"Retry-After": "60"},  # past the deadline: no retry
    )
    printed = "".join(traceback.format_exception(failure())) + caplog.text
    assert "Error generating embeddings: the service " in printed
    assert KEY[:8] not in printed
    assert KEY[-4:] not in printed
    assert TEXT not in printed


def test_a_refused_parameter_is_left_out_and_remembered(fake: FakeOpenAI) -> None:
    openai_embeddings._refused_parameters.clear()
    fake.embeddings.default = NoDimensions()
    for text in (TEXT, TEXT):
        assert embedding_service.get_embedding(text) == pytest.approx(expected(TEXT))
    assert ["dimensions" in request.fields for request in fake.requests] == [True, False, False]
    openai_embeddings._refused_parameters.clear()


def test_vectors_without_index_are_taken_in_order(fake: FakeOpenAI, settings: Settings) -> None:
    fake.embeddings.default = WithoutIndex()
    vectors = embedding_service.get_embeddings_batch(["one", "two"])
    assert np.array_equal(vectors, [expected("one"), expected("two")])
    settings.EMBEDDING_TIMEOUT_S = 0.5
    fake.embeddings.default = WithoutIndex(missing=1)
    with pytest.raises(errors.EmbeddingError):
        embedding_service.get_embeddings_batch(["one", "two"])
