"""A failed test leaves no process and no warning for the next."""

import subprocess
import sys
from pathlib import Path

from tests.support import ROOT, clean_environment

TESTS = """
import socket, subprocess, sys
import pytest

SLEEP = [sys.executable, "-c", "import time; print('ready', flush=True); time.sleep(60)"]


def start():
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE, text=True)
    assert process.stdout.readline() == "ready\\n"
    return process


@pytest.fixture(scope="module")
def shared():
    process = start()
    yield process
    process.kill()
    process.communicate()


def test_that_fails(shared):
    process, connection = start(), socket.socket()
    print("left", process.pid)
    raise AssertionError("as planned")


def test_after_it(shared):
    import gc
    gc.collect()
    assert shared.poll() is None
"""


def test_a_failed_test_does_not_disturb_the_next(tmp_path: Path) -> None:
    file = tmp_path / "test_generated.py"
    file.write_text(TESTS)
    alone = ["-p", "no:django", "-p", "no:cacheprovider", "-c", "/dev/null", "-W", "error"]
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", *alone, "-p", "tests.leftovers", str(file)],
        cwd=ROOT, capture_output=True, text=True, env=clean_environment(PYTHONPATH=str(ROOT)),
    )  # fmt: skip
    assert "1 failed, 1 passed" in done.stdout, done.stdout
    (pid,) = [line.split()[1] for line in done.stdout.splitlines() if line.startswith("left")]
    assert not Path(f"/proc/{pid}").exists()
