"""Steps: reused threads, a bound on how many run, and connections that go back to the pool."""

import asyncio
import contextvars
import threading
import time
from contextlib import ExitStack
from typing import Any

import pytest
from django.db import connections

from retrieval import steps
from retrieval.steps import StepPool
from tests.support import PATIENCE_S

NUMBER: contextvars.ContextVar[int] = contextvars.ContextVar("NUMBER", default=0)


class Gate:
    """Adds steps that begin, and do not end until ``may_end`` is set."""

    def __init__(self, pool: StepPool) -> None:
        self.pool = pool
        self.begun: list[int] = []
        self.may_end = threading.Event()

    def add(self, number: int) -> None:
        def step() -> None:
            self.begun.append(number)
            self.may_end.wait(PATIENCE_S)

        self.pool.add(step)

    def wait_for(self, count: int) -> None:
        until = time.monotonic() + PATIENCE_S
        while len(self.begun) < count and time.monotonic() < until:
            time.sleep(0.005)
        assert len(self.begun) >= count


def test_a_pool_runs_at_most_as_many_steps_as_it_has_threads() -> None:
    pool = StepPool(3)
    gate = Gate(pool)
    for number in range(8):
        gate.add(number)
    gate.wait_for(3)
    assert not pool.join(0.05)
    assert sorted(gate.begun) == [0, 1, 2]
    gate.may_end.set()
    assert pool.join(PATIENCE_S)
    assert sorted(gate.begun) == list(range(8))


def test_a_step_that_waits_gives_its_place_to_another() -> None:
    pool = StepPool(1)
    gate = Gate(pool)
    wait_may_end = threading.Event()

    def wait() -> None:
        with pool.waiting():
            wait_may_end.wait(PATIENCE_S)

    for _ in range(5):
        pool.add(wait)
    gate.add(0)
    gate.wait_for(1)
    assert gate.begun == [0]
    wait_may_end.set()
    gate.may_end.set()
    assert pool.join(PATIENCE_S)


def test_the_thread_that_became_idle_last_runs_the_next_step() -> None:
    pool = StepPool(4)
    gate = Gate(pool)
    for number in range(4):
        gate.add(number)
    gate.wait_for(4)
    gate.may_end.set()
    assert pool.join(PATIENCE_S)
    names: list[threading.Thread] = []
    for _ in range(5):
        pool.add(lambda: names.append(threading.current_thread()))
        assert pool.join(PATIENCE_S)
    assert len(set(names)) == 1


@pytest.mark.django_db(transaction=True)
def test_a_step_returns_its_connection_also_before_a_wait() -> None:
    def query() -> tuple[Any, Any]:
        own = connections["default"]
        own.ensure_connection()
        with steps.waiting():
            waits_with = own.connection
        own.ensure_connection()
        return waits_with, own

    waits_with, own = steps.submit(query).result(PATIENCE_S)
    assert waits_with is None
    assert own.connection is None


def test_an_error_of_a_step_reaches_its_caller() -> None:
    def fail() -> None:
        raise ValueError("a fault")

    with pytest.raises(ValueError, match="a fault"):
        asyncio.run(steps.run(fail))
    assert asyncio.run(steps.run(lambda: 1)) == 1


def test_a_step_sees_its_callers_context_and_changes_only_a_copy() -> None:
    def change() -> int:
        NUMBER.set(NUMBER.get() + 1)
        return NUMBER.get()

    with ExitStack() as undo:
        undo.callback(NUMBER.reset, NUMBER.set(6))
        assert [steps.submit(change).result(PATIENCE_S) for _ in range(2)] == [7, 7]
        assert NUMBER.get() == 6


def test_a_step_that_is_cancelled_before_it_begins_does_not_run() -> None:
    may_end = threading.Event()
    busy = [steps.submit(may_end.wait, PATIENCE_S) for _ in range(steps.MAX_THREADS)]
    results: list[int] = []
    queued = steps.submit(results.append, 1)
    assert queued.cancel()
    may_end.set()
    assert all(future.result(PATIENCE_S) for future in busy)
    assert steps.join(PATIENCE_S)
    assert results == []
