"""Writes figures to benchmarks/results/NAME.json, with the machine, the versions and the date.

Ratios compare ways within a run, so that they are similar on another machine. Where possible they
are of processor times, which change little on a busy machine.
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
LIBRARY_MAX_MESSAGES = 2_000  # of a user, in the comparison with the libraries


def finish(outcome: dict[str, Any], path: Path | None) -> None:
    """Print the ratios, and write all figures to the file, if given."""
    print("\n| ratio | |\n|---|---|")
    for name, ratio in outcome["ratios"].items():
        print(f"| {name} | {ratio} |")
    if path:
        write(outcome, path)


def write(outcome: dict[str, Any], path: Path) -> None:
    """Write figures to the file, after the facts of this run."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(about() | outcome, indent=1) + "\n")


def about() -> dict[str, Any]:
    """The date, the machine with its load of the last minute, and the versions."""
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
    """The processor's name in /proc/cpuinfo."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def ladder_ratios(figures: dict[str, dict[str, dict[str, float]]]) -> dict[str, float]:
    """By size: recall divided by the other ways. Lower is better; for "found" higher is better."""
    ratios: dict[str, float] = {}
    for size, ways in figures.items():
        recall, exact = ways["recall"], ways["exact scan"]
        ratios[f"{size}: found by recall"] = recall["found"]
        ratios[f"{size}: short answers of recall"] = recall["short"]
        for name, key in {"CPU": "total_cpu_ms", "p50": "p50_ms"}.items():
            ratios[f"{size}: recall / exact scan, {name}"] = round(recall[key] / exact[key], 2)
        libraries = [
            ways[name]["p50_ms"]
            for name in ("mem0", "langchain-postgres", "llama-index")
            if name in ways
        ]
        if libraries and int(size) <= LIBRARY_MAX_MESSAGES:
            ratios[f"{size}: recall / fastest library, p50"] = round(
                recall["p50_ms"] / min(libraries), 2
            )
    return ratios
