"""Turn the output of ``rag_status --json`` (stdin) into Prometheus text (stdout).

manage.py rag_status --json | python3 deploy/alerts/metrics.py

Needs only Python 3.9 or later. How to use it: docs/howto/set-alerts.md
"""

import json
import sys
import time
from collections.abc import Iterator
from typing import Any

HELP = {
    "verse_memory_messages": "Messages by table and state; without: pending.",
    "verse_memory_index_valid": "1 if the index exists and was built to its end.",
    "verse_memory_index_bytes": "Size of the index on disk.",
    "verse_memory_model_matches": "0 if the settings name another model than the stored vectors.",
    "verse_memory_logged_errors": "Errors in the servers' logs in the last hour.",
    "verse_memory_status_timestamp_seconds": "When these figures were read.",
}


def samples(report: dict[str, Any], now: float) -> Iterator[tuple[str, str, float]]:
    """Each sample as name, labels and value."""
    for table, counts in report["tables"].items():
        for state in ("with", "without", "failed"):
            labels = f'{{table="{table}",state="{state}"}}'
            yield "verse_memory_messages", labels, counts[state]
    for index in report["indexes"]:
        labels = f'{{table="{index["table"]}",index="{index["name"]}"}}'
        yield "verse_memory_index_valid", labels, int(index["valid"])
    for index in report["indexes"]:
        labels = f'{{table="{index["table"]}",index="{index["name"]}"}}'
        yield "verse_memory_index_bytes", labels, index["size_bytes"]
    known = None not in (report["model"], report["configured_model"])
    matches = not known or report["model"] == report["configured_model"]
    yield "verse_memory_model_matches", "", int(matches)
    yield "verse_memory_logged_errors", "", sum(report["log"]["hour"].values())
    yield "verse_memory_status_timestamp_seconds", "", round(now)


def render(report: dict[str, Any], now: float) -> str:
    """The text format of Prometheus, each metric with its HELP and TYPE lines."""
    lines: list[str] = []
    previous = ""
    for name, labels, value in samples(report, now):
        if name != previous:
            lines += [f"# HELP {name} {HELP[name]}", f"# TYPE {name} gauge"]
        lines.append(f"{name}{labels} {value}")
        previous = name
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render(json.load(sys.stdin), time.time()))
