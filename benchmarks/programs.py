"""A program in a process of its own that answers numbered questions, for benchmarks.

It gets a question's number as a line. Lines of its output that begin with ``> `` are JSON for the
parent: first the facts, then an answer to each question.
"""

import json
import subprocess
from typing import Any

from benchmarks.ways import Answer, Question


class Program:
    """A running program. ``facts``: its first line."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self._process = process
        self.facts: dict[str, Any] = self._read()

    def look(self, question: Question) -> Answer:
        """Send a question. The times are measured by the program itself."""
        assert self._process.stdin is not None
        self._process.stdin.write(f"{question.number}\n")
        self._process.stdin.flush()
        answer = self._read()
        return Answer(answer["found"], answer["ms"], answer["cpu_ms"])

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
