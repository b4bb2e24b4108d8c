"""A pytest plugin that ends what a failed test has left, so that it disturbs no other test.

A traceback keeps the test's variables alive. They would be deleted during a later test: warnings of
processes that still run and of connections that are not closed, which are errors there.
"""

import contextlib
import gc
import subprocess
import sys
import warnings
from collections.abc import Generator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

PATIENCE_S = 10
TRACEBACKS = ("last_exc", "last_type", "last_value", "last_traceback")


FAILED = pytest.StashKey[bool]()
OF_FIXTURES = pytest.StashKey[set[int]]()


@pytest.fixture(autouse=True)
def processes_of_fixtures(request: pytest.FixtureRequest) -> None:
    """Remembers the processes of fixtures for several tests: a failed test does not end them."""
    request.node.stash[OF_FIXTURES] = children()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, Any, Any]:
    """Remember whether the test or one of its fixtures failed."""
    report = yield
    item.stash[FAILED] = item.stash.get(FAILED, False) or report.failed
    return report


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, Any, Any]:
    """After a failed test, end what it has left."""
    result = yield
    if item.stash.get(FAILED, False):
        end_leftovers(keep=item.stash.get(OF_FIXTURES, set[int]()))
    return result


def children() -> set[int]:
    """The numbers of this process's children. Needs Linux; elsewhere none are known."""
    pids = set[int]()
    for file in Path("/proc/self/task").glob("*/children"):
        with suppress(FileNotFoundError, ProcessLookupError):  # the thread has just ended
            pids.update(map(int, file.read_text().split()))
    return pids


def running_processes() -> list["subprocess.Popen[str]"]:
    """The processes that this one has started and not yet waited for. Takes 80 ms."""
    # isinstance would evaluate Django's lazy objects.
    processes = [item for item in gc.get_objects() if type(item) is subprocess.Popen]
    return [process for process in processes if process.returncode is None]


def end_leftovers(*, keep: set[int]) -> None:
    """Kill processes but those with the numbers in ``keep``; delete the failed test's variables."""
    for process in running_processes():
        if process.pid not in keep:
            kill(process)
    for name in TRACEBACKS:
        with contextlib.suppress(AttributeError):
            delattr(sys, name)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def kill(process: "subprocess.Popen[str]") -> None:
    """Kill a process, wait for it, and close its pipes."""
    process.kill()
    process.wait(PATIENCE_S)
    for pipe in (process.stdin, process.stdout, process.stderr):
        if pipe:
            with contextlib.suppress(OSError):  # written text that the process has not read
                pipe.close()
