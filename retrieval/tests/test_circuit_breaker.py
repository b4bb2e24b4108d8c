"""The circuit breaker: when calls to a failing service stop, and how they start again."""

from concurrent.futures import ThreadPoolExecutor

import pytest

from fake_openai import FakeOpenAI, Refuse, Vectors
from retrieval.embeddings import embedding_service, errors
from retrieval.tests.embedding_support import Clock

pytestmark = pytest.mark.usefixtures("fake")


@pytest.fixture
def clock() -> Clock:
    """The circuit breaker's clock."""
    clock = Clock()
    embedding_service.reset(clock=clock)
    return clock


def fail_three_times(fake: FakeOpenAI) -> None:
    fake.embeddings.script(*[Refuse(401)] * 3)
    for _ in range(3):
        with pytest.raises(errors.KeyRefused):
            embedding_service.get_embedding("hello")


def test_three_failures_stop_calls_for_15_s_until_a_probe_succeeds(
    fake: FakeOpenAI, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    fail_three_times(fake)
    assert (len(fake.requests), len(caplog.records)) == (3, 3)
    for now_s in (1000.0, 1014.9):
        clock.now_s = now_s
        assert embedding_service.is_paused()
        with pytest.raises(errors.CircuitOpen) as refused:
            embedding_service.submit(["hello"])
    assert refused.value.retry_after_s == pytest.approx(0.1)
    assert (len(fake.requests), len(caplog.records)) == (3, 3)

    clock.now_s = 1015.0
    assert not embedding_service.is_paused()
    fake.embeddings.default = Vectors(delay_s=0.3)
    first = embedding_service.submit(["hello"])
    with pytest.raises(errors.CircuitOpen):
        embedding_service.submit(["hello"])
    first.result()
    assert not embedding_service.is_paused()
    embedding_service.get_embedding("hello")
    assert len(fake.requests) == 5


def test_a_failed_probe_opens_the_circuit_again(fake: FakeOpenAI, clock: Clock) -> None:
    fail_three_times(fake)
    clock.now_s += 15
    fake.embeddings.script(Refuse(403))
    with pytest.raises(errors.KeyRefused):
        embedding_service.get_embedding("hello")
    assert embedding_service.is_paused()
    clock.now_s += 15
    embedding_service.get_embedding("hello")
    assert not embedding_service.is_paused()


def test_only_one_of_many_concurrent_callers_becomes_the_probe(
    fake: FakeOpenAI, clock: Clock
) -> None:
    fail_three_times(fake)
    clock.now_s += 15
    fake.embeddings.default = Vectors(delay_s=0.3)

    def try_one(number: int) -> bool:
        try:
            embedding_service.get_embedding(f"{number}")
        except errors.CircuitOpen:
            return False
        return True

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(try_one, range(8))).count(True) == 1
    assert len(fake.requests) == 4


def test_a_success_in_between_keeps_the_circuit_closed(fake: FakeOpenAI) -> None:
    fake.embeddings.script(*(Refuse(401), Refuse(401), Vectors()) * 3)
    for _ in range(3):
        for _ in range(2):
            with pytest.raises(errors.KeyRefused):
                embedding_service.get_embedding("hello")
        embedding_service.get_embedding("hello")
    assert not embedding_service.is_paused()


def test_a_refused_text_does_not_count_as_a_failure(fake: FakeOpenAI) -> None:
    fake.embeddings.refuse_text("poison")
    for _ in range(4):
        with pytest.raises(errors.InputRefused):
            embedding_service.get_embedding("poison")
    assert not embedding_service.is_paused()


def test_after_a_refused_text_the_next_call_is_the_probe(fake: FakeOpenAI, clock: Clock) -> None:
    fail_three_times(fake)
    clock.now_s += 15
    fake.embeddings.refuse_text("poison")
    with pytest.raises(errors.InputRefused):
        embedding_service.get_embedding("poison")
    embedding_service.get_embedding("hello")
    assert not embedding_service.is_paused()


def test_callers_who_stop_waiting_count_as_failures() -> None:
    for _ in range(3):
        assert not embedding_service.is_paused()
        embedding_service.record_cut_off()
    assert embedding_service.is_paused()
    embedding_service.reset()
    assert not embedding_service.is_paused()


def test_failures_of_running_calls_do_not_extend_the_15_s(fake: FakeOpenAI, clock: Clock) -> None:
    fail_three_times(fake)
    clock.now_s += 10
    embedding_service.record_cut_off()
    clock.now_s += 5
    assert not embedding_service.is_paused()
