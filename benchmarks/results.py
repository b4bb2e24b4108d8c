"""Figures as files: benchmarks/results/NAME.json, with the machine, the versions and the date. And their targets.

Ratios compare ways of one run, so that another machine's are like them: by processor time where it can be told, which
a busy machine does not change much.
"""

import json
import os
import platform
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psycopg
from django.db import connection

from tests.support import database_url

FOLDER = Path(__file__).parent / "results"
PACKAGES = ("Django", "psycopg", "numpy", "pgvector")
UP_TO = 2_000  # messages of a user, in the comparison with the libraries


def finish(found: dict[str, Any], path: Path | None) -> None:
    """Print the ratios, and write everything where it is wanted."""
    print("\n| ratio | |\n|---|---|")
    for name, ratio in found["ratios"].items():
        print(f"| {name} | {ratio} |")
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(json.dumps(about() | found, indent=1) + "\n")


def about() -> dict[str, Any]:
    """Where and when; load is that of the last minute, in runnable processes."""
    connection.settings_dict["NAME"] = "postgres"
    with psycopg.connect(database_url(connection)) as server:
        (postgres,) = server.execute("SHOW server_version").fetchone() or ("",)
    return {
        "date": datetime.now(UTC).isoformat(timespec="minutes"),
        "machine": {
            "cores": os.cpu_count(),
            "load": round(os.getloadavg()[0], 1),
            "processor": processor(),
        },
        "versions": {"Python": platform.python_version(), "PostgreSQL": postgres}
        | {name: version(name) for name in PACKAGES},
    }


def processor() -> str:
    """Its name, as the kernel has it."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def ladder_ratios(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """Recall against the other ways, by size: lower is better; ``found`` is a share, higher is better."""
    ratios: dict[str, float] = {}
    for size, ways in figures.items():
        recall, exact = ways["recall"], ways["exact scan"]
        ratios[f"{size}: found by recall"] = recall["found"]
        ratios[f"{size}: short answers of recall"] = recall["short"]
        ratios[f"{size}: recall / exact scan, CPU"] = round(recall["cpu_ms"] / exact["cpu_ms"], 2)
        ratios[f"{size}: recall / exact scan, p50"] = round(recall["p50_ms"] / exact["p50_ms"], 2)
        libraries = [
            ways[name]["p50_ms"]
            for name in ("mem0", "langchain-postgres", "llama-index")
            if name in ways
        ]
        if libraries and int(size) <= UP_TO:
            ratios[f"{size}: recall / fastest library, p50"] = round(
                recall["p50_ms"] / min(libraries), 2
            )
    return ratios
