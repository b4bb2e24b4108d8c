"""Measures this checkout and an earlier one alternately, and compares the figures with targets.

    .venv/bin/python -m benchmarks.targets [--before PATH] [--quick] [--only PART ...] [--json FILE]

Without ``--before`` the earlier checkout is a worktree of commit 41f0cd2. Processor times are those
of the workers and of their database processes. They change little on a busy machine; times by the
wall clock change much. Without ``--quick`` it takes about half an hour.
"""

import argparse
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import django

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "verse.settings")
django.setup()

from benchmarks import fills, inserts, recalls, requests, results, streams, turn
from benchmarks.sides import Checkout, Figures, checkouts


@dataclass(frozen=True)
class Target:
    """Two bounds of a figure: upper bounds, or lower ones if ``at_least``. None: no bound."""

    name: str
    required: float | None = None
    desired: float | None = None
    at_least: bool = False

    def result(self, value: float | None) -> str:
        """The table's last cell: whether the figure meets its bounds."""
        if value is None:
            return "not measured"
        if self.required is None:
            return ""
        if not self._meets(value, self.required):
            return "**missed**"
        is_desired = self.desired is not None and self._meets(value, self.desired)
        return "met, as desired" if is_desired else "met"

    def bound(self, value: float | None) -> str:
        """A bound as a cell of the table."""
        return "" if value is None else f"{'≥' if self.at_least else '≤'} {as_cell(value)}"

    def _meets(self, value: float, bound: float) -> bool:
        return value >= bound if self.at_least else value <= bound


# Each part measures some lines of the table. Lines with a target have the name of that target.
Part = Callable[..., Figures]
PARTS: dict[str, Part] = {
    "requests": requests.measure,
    "turn": turn.measure,
    "streams": streams.measure,
    "recall": recalls.measure,
    "insert": inserts.measure,
    "backfill": fills.measure,
}
RECALL_SIZES = {  # messages: required, desired backend CPU ms
    20: (1.4, 0.8),
    200: (1.7, 1),
    700: (2.6, 1.6),
    2_000: (3.4, 2.2),
    20_000: (11, 8),
}
TARGETS = (
    Target("an empty list, worker CPU ms", 1.8, 1.2),
    Target("memory search, worker CPU ms", 4, 3),
    Target("a turn, worker CPU ms", 12, 9),
    Target("a turn, its own time, p50 ms", 18, 14),
    Target("a turn, backend CPU ms", 9, 7),
    Target("100 streams spread over 1 s, first token p95 ms", 60, 20),
    Target("100 streams all at once, first token p95 ms", 550, 400),
    Target("a stream of 50 tokens, worker CPU ms", 14, 10),
    *(
        Target(f"recall of {size:,} messages, backend CPU ms", required, desired)
        for size, (required, desired) in RECALL_SIZES.items()
    ),
    Target("recall / exact scan at 2,000, backend CPU", 1 / 3.3, 1 / 5),
    Target("recall / exact scan at 20,000, backend CPU", 1 / 9.5, 1 / 13),
    Target("recall of 700 messages, client CPU ms", 1.6, 1),
    Target("recall / fastest library up to 2,000, p50", 0.6, 0.4),
    Target("backfill, times as fast as single UPDATEs", 4, 6, at_least=True),
    Target("recall's share of the five nearest, any size", 0.996, at_least=True),
    Target("recall's answers of fewer than five", 0),
    Target("insert of a message over the bare table, backend CPU ms", 0.2, 0.1),
    Target("a worker's memory, MB", 165, 150),
)


def main() -> None:
    """Measure, print the table, and write the figures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--before", type=Path, help="another checkout than commit 41f0cd2")
    parser.add_argument(
        "--quick", action="store_true", help="fewer samples: takes minutes, is less exact"
    )
    parser.add_argument(
        "--only", nargs="+", choices=PARTS, default=list(PARTS), help="measure only these parts"
    )
    parser.add_argument("--json", type=Path, help="write the figures there")
    options = parser.parse_args()
    duration = "some ten minutes" if options.quick else "about half an hour"
    print(f"{len(options.only)} parts; all take {duration}", file=sys.stderr, flush=True)
    with checkouts(options.before) as both:
        figures = measure(both, options.only, quick=options.quick)
    print_table(figures)
    if options.json:
        results.write({"quick": options.quick, "figures": figures}, options.json)


def measure(both: list[Checkout], parts: list[str], *, quick: bool) -> Figures:
    """Measure the parts one after the other, and print each part's figures when it ends."""
    figures: Figures = {}
    for part in parts:
        started = time.monotonic()
        lines = PARTS[part](both, quick=quick)
        figures |= lines
        print(
            f"{part}: {json.dumps(lines)}\n{time.monotonic() - started:.0f} s",
            file=sys.stderr,
            flush=True,
        )
    return figures


def print_table(figures: Figures) -> None:
    """Print a Markdown table: a line for each target, then one for each other figure."""
    print("| | before | now | now / before | required | desired | |\n|---|---|---|---|---|---|---|")
    for target in TARGETS:
        print(as_line(target, figures.get(target.name, {})))
    names = {target.name for target in TARGETS}
    for name in (name for name in figures if name not in names):
        print(as_line(Target(name), figures[name]))


def as_line(target: Target, by_side: dict[str, float]) -> str:
    """A line of the table."""
    before, now = by_side.get("before"), by_side.get("now")
    ratio = f"{now / before:.2f}" if before and now is not None else ""
    cells = [
        *map(as_cell, (before, now)),
        ratio,
        *map(target.bound, (target.required, target.desired)),
    ]
    return f"| {target.name} | {' | '.join(cells)} | {target.result(now)} |"


def as_cell(value: float | None) -> str:
    """A figure with three significant digits."""
    return "" if value is None else f"{value:.3g}" if value < 1000 else f"{value:.0f}"


if __name__ == "__main__":
    main()
