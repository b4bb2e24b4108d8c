"""Measures the bundled embedding models: CPU time of a question and an answer, and memory.

    .venv/bin/python -m benchmarks.local_models

CPU times are those of the process, so they change little on a busy machine. Each model is measured
in a process of its own. Its memory is how much the process has grown after loading, 20 questions
and 20 answers.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks.processes import resident_mb
from retrieval.embeddings import bundled_models

SAMPLES = Path(__file__).parent.parent / "chat/samples/conversations.jsonl"
REPEATS = 20


def main() -> None:
    """Print the table; with ``--model`` the line of one model."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", help="only this one, in this process")
    model = parser.parse_args().model
    if model:
        print(measure(model))
        return
    print("| model | question, ms CPU | answer of 1,200 characters, ms CPU | loading, s | MB |")
    print("|---|---|---|---|---|")
    for name in bundled_models.PARTS:
        command = [sys.executable, "-m", "benchmarks.local_models", "--model", name]
        subprocess.run(command, check=True)


def measure(model: str) -> str:
    """The model's line of the table."""
    before_mb = resident_mb(os.getpid())
    loading_s = cpu_s(lambda: bundled_models.embed(["hello"], model))
    lines = SAMPLES.read_text().splitlines()
    contents = [json.loads(line)["content"] for line in lines[:REPEATS]]
    answer = " ".join(contents)[:1_200]
    question_s = cpu_s(lambda: [bundled_models.embed([text[:60]], model) for text in contents])
    answer_s = cpu_s(lambda: [bundled_models.embed([answer], model) for _ in range(REPEATS)])
    question_ms, answer_ms = (1000 * seconds / REPEATS for seconds in (question_s, answer_s))
    grown_mb = resident_mb(os.getpid()) - before_mb
    return f"| `{model}` | {question_ms:.1f} | {answer_ms:.0f} | {loading_s:.1f} | {grown_mb:.0f} |"


def cpu_s(work: Callable[[], object]) -> float:
    """The process's CPU seconds of this work."""
    began = time.process_time()
    work()
    return time.process_time() - began


if __name__ == "__main__":
    main()
