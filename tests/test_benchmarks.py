"""Benchmarks that measure several databases one after the other in one process."""

import subprocess
import sys

import pytest

from tests.support import ROOT, clean_environment

SMALL_SET = ROOT / "benchmarks/memory_data/people.json"


@pytest.mark.soak
def test_memory_is_measured_in_each_data_set() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--data", str(SMALL_SET)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.count(f"## {SMALL_SET.stem}, minilm+use") == 2
