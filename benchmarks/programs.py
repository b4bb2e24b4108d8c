"""Runs a program in a process of its own that answers numbered questions, for benchmarks.

The program reads a line with the number of each question. The lines that it prints with ``> `` at
their beginning are JSON for this process: first the facts, then an answer to each question.
"""

import json
import subprocess
from typing import Any

from benchmarks.ways import Answer, Question


class Program:
    """A running program. ``facts``: what it prints first, such as versions and rows."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.facts: dict[str, Any] = self._read()

    def look(self, question: Question) -> Answer:
        """Send the question's number. The program measures the times of its answer itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question.number}\n")
        self._process.stdin.flush()
        answer = self._read()
        return Answer(answer["found"], answer["ms"], answer["client_cpu_ms"])

    def end(self) -> None:
        """Kill the process."""
        self._process.kill()
        self._process.communicate()

    def _read(self) -> dict[str, Any]:
        """Its next answer. Other output is skipped."""
        assert self._process.stdout is not None
        for line in self._process.stdout:
            if line.startswith("> "):
                return dict(json.loads(line[2:]))
        raise RuntimeError(f"the program has ended: {self._process.args!r}")
