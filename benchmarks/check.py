"""Compares a small run with the committed ratios of benchmarks/results/check.json.

    .venv/bin/python -m benchmarks.check [--write] [--tolerance 1.5]

Compares ratios of processor times within the run, which are similar on a busy or another machine,
and the share of messages found. Exit code 1 if a ratio grew by more than the tolerance, or a share
fell by more than 0.01; each is named. Takes about three minutes.
"""

import argparse
import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks import recall, results, scale, search

COMMITTED = results.FOLDER / "check.json"
TOLERANCE = 1.5  # the ratios of two runs on a busy machine differed by up to 1.35
MAX_LOSS = 0.01  # of the share that is found


def main() -> None:
    """Compare this run with the committed ratios, or commit this run's."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="write the ratios of this run")
    parser.add_argument("--tolerance", type=float, default=TOLERANCE)
    options = parser.parse_args()
    ratios = {name: ratio for name, ratio in measure().items() if is_compared(name)}
    if options.write:
        results.finish({"ratios": ratios}, COMMITTED)
        return
    committed: dict[str, float] = json.loads(COMMITTED.read_text())["ratios"]
    worse = compare(committed, ratios, options.tolerance)
    print("\n".join(worse) or f"none of {len(committed)} ratios is worse")
    sys.exit(1 if worse else 0)


def measure() -> dict[str, float]:
    """The ratios of three small runs."""
    runs: list[dict[str, Any]] = [
        recall.run(30_000, 25, hnsw=False, others=False),
        scale.run([5_000], 25, hnsw_rows=0),
        search.run(5_000, 40),
    ]
    return {name: ratio for run in runs for name, ratio in run["ratios"].items()}


def is_compared(name: str) -> bool:
    """Whether a ratio is compared. Wall times depend too much on the machine."""
    return name.endswith(", CPU") or ": found" in name or ": short" in name


def compare(committed: dict[str, float], ratios: dict[str, float], tolerance: float) -> list[str]:
    """A line for each ratio that is worse or missing."""
    worse = []
    for name, before in committed.items():
        now = ratios.get(name)
        if now is None:
            worse.append(f"{name}: {before} before, not measured now")
        elif now < before - MAX_LOSS if ": found" in name else now > before * tolerance:
            worse.append(f"{name}: {before} before, {now} now")
    return worse


if __name__ == "__main__":
    main()
