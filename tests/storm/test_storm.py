"""A short storm. Longer ones: ``make storm``."""

import subprocess
import sys

import pytest

from tests.storm.fakes import Model
from tests.storm.findings import Findings
from tests.storm.marks import canary, mark_of
from tests.storm.schedule import machine_faults, service_faults
from tests.storm.script import script
from tests.storm.verify_site import is_one_messages
from tests.support import ROOT


def first(number: int, seed: int) -> list[object]:
    lists = (script(seed, 1), machine_faults(seed), service_faults(seed))
    return [next(entries) for entries in lists for _ in range(number)]


def test_a_seed_decides_every_action_and_every_fault() -> None:
    assert first(100, seed=7) == first(100, seed=7)
    assert first(100, seed=7) != first(100, seed=8)


@pytest.mark.parametrize("seed", range(30))
def test_an_answer_has_a_mark_of_its_own_by_any_seed(seed: int) -> None:
    question = f"{canary(seed, 7)}x12"
    own = Model(Findings())._new_mark(question)
    assert own == f"{canary(seed, 7)}r1"
    assert mark_of(f"I heard {own} about {question}") == own


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("zq07abcdx12 bread", True),
        ("I heard zq07abcdr3 about zq07abcdx12", True),
        ("I heard", False),
        ("What did I say about zq07abcdx12?", False),
    ],
)
def test_a_stopped_answer_without_a_mark_is_not_one_messages_text(
    text: str, expected: bool
) -> None:
    assert is_one_messages(text) is expected


@pytest.mark.soak
def test_after_a_minute_of_faults_every_promise_is_kept() -> None:
    command = [sys.executable, "-m", "tests.storm", "--seed", "1", "--minutes", "1"]
    storm = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert storm.returncode == 0, storm.stdout + storm.stderr
