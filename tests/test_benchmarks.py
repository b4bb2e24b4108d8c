"""The benchmarks that are long to run still run, with a small set of data."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import ROOT, clean_environment

FACTS = ["My dog Bruno is afraid of trams.", "We meet on the fifth floor."]
PERSON = {
    "conversation": "nora",
    "messages": [
        {"ref": str(place), "session": 1, "role": "user", "content": text,
         "created_at": "2026-03-02T18:00:00+00:00"}
        for place, text in enumerate(FACTS)
    ],
    "questions": [{"question": "What is Bruno afraid of?", "category": "fact", "evidence": ["0"]}],
}  # fmt: skip


@pytest.mark.soak
def test_memory_is_measured_in_each_data_set(tmp_path: Path) -> None:
    path = tmp_path / "small.json"
    path.write_text(json.dumps({"conversations": [PERSON]}))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", "--data", str(path)],
        cwd=ROOT, env=clean_environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    for name in ("own", "small"):
        assert done.stdout.count(f"## {name}, minilm+use") == 1
