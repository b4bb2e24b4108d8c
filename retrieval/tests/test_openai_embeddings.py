"""The service misbehaves: what is tried again, for how long, and that nothing wrong is ever returned."""

import random
import time
import traceback
from itertools import pairwise
from typing import get_args

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
    Refuse,
    Trickle,
    Vectors,
)
from retrieval.embeddings import embedding_service, errors
from retrieval.tests.embedding_support import KEY, expected

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
def test_what_may_pass_is_tried_again(fake: FakeOpenAI, behaviour: Behaviour) -> None:
    fake.embeddings.script(behaviour)
    assert embedding_service.get_embedding(TEXT) == pytest.approx(expected(TEXT))
    assert len(fake.requests) == 2


@pytest.mark.parametrize("behaviour", NONSENSE, ids=repr)
def test_nothing_wrong_is_ever_returned(
    fake: FakeOpenAI, settings: Settings, behaviour: Behaviour
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 0.3
    fake.embeddings.default = behaviour
    with pytest.raises(errors.Unavailable, match="the service's answer was not usable: "):
        embedding_service.get_embeddings_batch(["one", "two", TEXT])


def test_pauses_grow_and_are_not_all_the_same(fake: FakeOpenAI, settings: Settings) -> None:
    settings.EMBEDDING_TIMEOUT_S = 2.5
    fake.embeddings.default = Refuse(503)
    random.seed(4)
    failure()
    moments = [request.arrived_at for request in fake.requests]
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    random.seed(4)
    wanted = [random.uniform(0, most) for most in (0.2, 0.4, 0.8, 1.6, 2.0, 2.0)]
    assert gaps == pytest.approx(wanted[: len(gaps)], abs=0.15)
    assert len(gaps) >= 3
    assert max(gaps) > 0.4


def test_a_service_that_comes_back_is_found_within_the_deadline(fake: FakeOpenAI) -> None:
    fake.stop()
    call = embedding_service.submit([TEXT])
    time.sleep(0.3)
    assert not call.done()
    fake.start()
    assert call.result()[0] == pytest.approx(expected(TEXT))


def test_a_service_that_cannot_be_reached_is_a_failure(
    fake: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 0.3
    fake.stop()
    error = failure()
    fake.start()
    assert "the service cannot be reached (ConnectError)" in str(error)


@pytest.mark.parametrize("behaviour", [Hang(), HangAfter(), Trickle(every_s=0.05)], ids=repr)
def test_the_deadline_is_for_the_whole_call_and_closes_the_connection(
    fake: FakeOpenAI, settings: Settings, behaviour: Behaviour
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 0.5
    fake.embeddings.script(Refuse(500), behaviour)
    began = time.monotonic()
    error = failure()
    assert 0.45 < time.monotonic() - began < 1.5
    assert (type(error), str(error)) == (
        errors.Unavailable,
        "no answer within 0.5 s; before: the service failed: status 500",
    )
    fake.wait_for(lambda: fake.requests[-1].outcome == "client_gone")


def test_each_call_of_a_batch_has_the_deadline_to_itself(
    fake: FakeOpenAI, settings: Settings
) -> None:
    settings.EMBEDDING_TIMEOUT_S = 1.0
    fake.embeddings.default = Vectors(delay_s=0.6)
    assert len(embedding_service.get_embeddings_batch(["🦊" * 2_000] * 50)) == 50
    assert len(fake.requests) == 2


def test_retry_after_is_obeyed(fake: FakeOpenAI) -> None:
    fake.embeddings.script(Refuse(429, headers={"Retry-After": "0.6"}))
    fake.embeddings.script(Refuse(429, headers={"Retry-After-Ms": "600", "Retry-After": "60"}))
    embedding_service.get_embedding(TEXT)
    first, second, third = [request.arrived_at for request in fake.requests]
    assert second - first >= 0.6
    assert third - second >= 0.6


@pytest.mark.parametrize("status", [429, 503])
def test_retry_after_past_the_deadline_fails_at_once_and_is_told(
    fake: FakeOpenAI, status: int
) -> None:
    fake.embeddings.default = Refuse(status, headers={"Retry-After": "6"})
    began = time.monotonic()
    error = failure()
    assert time.monotonic() - began < 1
    assert (type(error), error.retry_after_s) == (errors.Unavailable, 6.0)
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
def test_what_will_not_pass_is_asked_once(
    fake: FakeOpenAI, refusal: Refuse, kind: type[errors.EmbeddingError], words: str
) -> None:
    fake.embeddings.default = refusal
    error = failure()
    assert (type(error), str(error)) == (kind, words)
    assert len(fake.requests) == 1


@pytest.mark.parametrize("status", [400, 401, 404, 429, 500])
def test_neither_key_nor_text_gets_into_a_log_or_a_traceback(
    fake: FakeOpenAI, settings: Settings, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO")
    settings.EMBEDDING_TIMEOUT_S = 0.2
    fake.embeddings.default = Refuse(
        status, code=KEY, message=f"Wrong: {KEY[:8]}****{KEY[-4:]}; {TEXT}"
    )
    told = "".join(traceback.format_exception(failure())) + caplog.text
    assert "Error generating embeddings: the service " in told
    assert KEY[:8] not in told
    assert KEY[-4:] not in told
    assert TEXT not in told
