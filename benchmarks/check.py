"""Is anything worse than when its ratios were committed? A small run, beside benchmarks/results/check.json.

    .venv/bin/python -m benchmarks.check [--write] [--tolerance 1.5]

Compared are ratios of processor times of one run, which hold on a busy or another machine, and what is found. Exit 1
where a ratio has grown by more than the tolerance, or less is found than before, by a hundredth; each is named. Some
three minutes.
"""

import argparse
import json
import os
import sys
from typing import Any

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks import growth, recall, results, search

COMMITTED = results.FOLDER / "check.json"
TOLERANCE = 1.5  # the same ratios in two runs, on a machine with other work, differed by up to 1.35
LESS_FOUND = 0.01


def main() -> None:
    """Compare, or write what later runs are compared with."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--write", action="store_true", help="commit to the ratios of this run")
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
    """All ratios of three small runs."""
    runs: list[dict[str, Any]] = [
        recall.run(30_000, 25, hnsw=False, others=False),
        growth.run([5_000], 25, hnsw_rows=0),
        search.run(5_000, 40),
    ]
    return {name: ratio for run in runs for name, ratio in run["ratios"].items()}


def is_compared(name: str) -> bool:
    """Wall times and differences in milliseconds say too much about the machine."""
    return name.endswith(", CPU") or ": found" in name or ": short" in name


def compare(committed: dict[str, float], ratios: dict[str, float], tolerance: float) -> list[str]:
    """A line for each ratio that is worse, or that the run does not have."""
    worse = []
    for name, before in committed.items():
        now = ratios.get(name)
        if now is None:
            worse.append(f"{name}: {before} before, not measured now")
        elif now < before - LESS_FOUND if ": found" in name else now > before * tolerance:
            worse.append(f"{name}: {before} before, {now} now")
    return worse


if __name__ == "__main__":
    main()
