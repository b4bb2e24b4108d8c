"""The share of a process's connections that one user's work may hold."""

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

import pytest
from pytest_django import Settings

from retrieval import connection_share
from retrieval.connection_share import Shares, connections_of_a_user
from tests.support import PATIENCE_S

ALICE, BOB = 1, 2


@pytest.fixture
def shares() -> Shares:
    """Two at a time for each user."""
    return Shares(lambda: 2)


def work(begun: list[int], number: int, *, wanted: bool = True) -> Callable[[], bool]:
    """Notes that it has begun; or its caller was cancelled."""

    def start() -> bool:
        if wanted:
            begun.append(number)
        return wanted

    return start


def test_work_over_the_share_waits_in_order(shares: Shares) -> None:
    begun: list[int] = []
    for number in range(5):
        shares.begin(ALICE, work(begun, number))
    assert begun == [0, 1]
    shares.begin(BOB, work(begun, 10))
    assert begun == [0, 1, 10]
    shares.end(ALICE)
    shares.end(ALICE)
    assert begun == [0, 1, 10, 2, 3]
    for _ in range(3):
        shares.end(ALICE)
    shares.end(BOB)
    assert begun == [0, 1, 10, 2, 3, 4]
    assert (shares._holding, shares._waiting) == ({}, {})


def test_cancelled_work_takes_no_place(shares: Shares) -> None:
    begun: list[int] = []
    for number, wanted in enumerate((True, True, False, False, True)):
        shares.begin(ALICE, work(begun, number, wanted=wanted))
    shares.end(ALICE)
    assert begun == [0, 1, 4]
    shares.end(ALICE)
    shares.end(ALICE)
    shares.begin(ALICE, work(begun, 5, wanted=False))
    assert (shares._holding, shares._waiting) == ({}, {})


def test_even_a_single_connection_can_be_had(settings: Settings) -> None:
    settings.DATABASE_POOL_SIZE = 1
    shares = Shares(connections_of_a_user)
    begun: list[int] = []
    shares.begin(ALICE, work(begun, 0))
    shares.begin(ALICE, work(begun, 1))
    assert begun == [0]


@pytest.mark.django_db
def test_steps_and_blocks_of_a_user_wait_for_each_other(settings: Settings) -> None:
    settings.DATABASE_POOL_SIZE = 2
    inside, leave = threading.Event(), threading.Event()

    def block() -> None:
        with connection_share.hold(ALICE):
            inside.set()
            leave.wait(PATIENCE_S)

    with ThreadPoolExecutor(1) as pool:
        blocked = pool.submit(block)
        assert inside.wait(PATIENCE_S)
        step: Future[str] = connection_share.submit(ALICE, lambda: "done")
        dropped: Future[None] = connection_share.submit(ALICE, pytest.fail, "was cancelled")
        failing: Future[float] = connection_share.submit(ALICE, lambda: 1 / 0)
        assert connection_share.submit(BOB, lambda: "done").result(PATIENCE_S) == "done"
        assert dropped.cancel()
        assert not step.done()
        leave.set()
        assert step.result(PATIENCE_S) == "done"
        assert isinstance(failing.exception(PATIENCE_S), ZeroDivisionError)
        blocked.result(PATIENCE_S)
    with connection_share.hold(ALICE):  # the place is free again
        pass
