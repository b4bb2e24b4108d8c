"""Answers questions by the recall of a checkout, in its environment: a program of ``recalls``.

python recaller.py QUESTIONS

``QUESTIONS`` is a .npz file with ``users``, ``texts`` and ``vectors``.
"""

import json
import sys
import time
from typing import Any

import django

django.setup()

import numpy as np
from django.db import connection

try:
    from retrieval.recall.candidates import Scope
    from retrieval.recall.messages import recall
except ImportError:  # the earlier checkout
    from retrieval.recall import Scope, recall  # type: ignore[attr-defined,no-redef]


def main() -> None:
    """Print the database process of this program, then an answer to each line of input."""
    questions = np.load(sys.argv[1])
    connection.ensure_connection()
    say({"backend": connection.connection.info.backend_pid})
    for line in sys.stdin:
        number = int(line)
        question = (int(questions["users"][number]), str(questions["texts"][number]))
        say(answer(*question, questions["vectors"][number]))


def answer(user: int, text: str, vector: Any) -> dict[str, Any]:
    """Packed ids, nearest first by cosine alone, and the time of the whole recall."""
    # CPU time of this thread, because numpy's other threads spin for a while.
    cpu, started = time.thread_time(), time.perf_counter()
    ranked = recall(text, Scope(user), embedding=vector, model="model")
    ms, cpu_ms = (time.perf_counter() - started) * 1000, (time.thread_time() - cpu) * 1000
    nearest = sorted(ranked, key=lambda item: item.similarity or -1.0, reverse=True)
    return {"found": [ref_of(item) for item in nearest], "ms": ms, "client_cpu_ms": cpu_ms}


def ref_of(item: Any) -> int:
    """The packed message id."""
    return int(item.ref if hasattr(item, "ref") else item.reference)


def say(values: dict[str, Any]) -> None:
    """Print a line for the parent."""
    print(f"> {json.dumps(values)}", flush=True)


if __name__ == "__main__":
    main()
