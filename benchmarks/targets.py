"""Compares the figures in benchmarks/results with the targets for recall, as a Markdown table.

.venv/bin/python -m benchmarks.targets
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from benchmarks.results import FOLDER

FILES = ("recall", "growth", "hostile", "search")
Results = dict[str, dict[str, Any]]  # by name: a file's content


@dataclass(frozen=True)
class Target:
    """A figure with a required and a desired bound. ``value`` gets it from the results."""

    name: str
    value: Callable[[Results], float]
    must: float
    hoped: float | None = None
    at_least: bool = False

    def line(self, results: Results) -> str:
        """A line of the table."""
        value = self.value(results)
        met = value >= self.must if self.at_least else value <= self.must
        sign = "≥" if self.at_least else "≤"
        hoped = "" if self.hoped is None else f"{sign} {self.hoped:g}"
        result = "met" if met else "**missed**"
        return f"| {self.name} | {value:g} | {sign} {self.must:g} | {hoped} | {result} |"


def ladder(ending: str) -> Callable[[Results], list[float]]:
    """The ratios of recall.json with this name, one for each size."""
    return lambda results: [
        value
        for name, value in results["recall"]["ratios"].items()
        if name.partition(": ")[2] == ending
    ]


def ratio(file: str, name: str) -> Callable[[Results], float]:
    """The ratio of this name in a file."""
    return lambda results: float(results[file]["ratios"][name])


def growth(results: Results) -> float:
    """The worst ratio of a user's recall at the two largest sizes."""
    ratios = results["growth"]["ratios"].items()
    return max(
        float(value)
        for name, value in ratios
        if name.startswith("recall of") and name.endswith("p50")
    )


def insert(results: Results) -> float:
    """What recall adds to an insert at the largest size, in milliseconds."""
    ratios = results["growth"]["ratios"].items()
    return [
        float(value)
        for name, value in ratios
        if name.endswith("insert with recall over bare, CPU ms")
    ][-1]


def hostile(results: Results) -> float:
    """The slower p50 of the user who repeats a word 200,000 times."""
    return max(
        float(row["p50_ms"]) for row in results["hostile"]["figures"]["the hostile user"].values()
    )


def over_http(results: Results) -> float:
    """The most that HTTP adds to a search, in milliseconds."""
    ratios = results["search"]["ratios"].items()
    return max(float(value) for name, value in ratios if name.endswith("HTTP over recall, p50 ms"))


TARGETS = [
    Target(
        "found of the five nearest, any size",
        lambda r: min(ladder("found by recall")(r)),
        0.99,
        at_least=True,
    ),
    Target("short answers", lambda r: sum(ladder("short answers of recall")(r)), 0),
    Target(
        "700 messages: recall / exact scan, p50",
        ratio("recall", "700: recall / exact scan, p50"),
        3,
        2,
    ),
    Target(
        "20,000 messages: recall / exact scan, p50",
        ratio("recall", "20000: recall / exact scan, p50"),
        0.2,
        0.125,
    ),
    Target(
        "up to 2,000: recall / fastest library, p50",
        lambda r: max(ladder("recall / fastest library, p50")(r)),
        1,
    ),
    Target("the same user, the largest / the size before, p50", growth, 1.3),
    Target("200,000 messages of one word, p50 ms", hostile, 100),
    Target("search over HTTP over the recall itself, p50 ms", over_http, 6),
    Target("insert of a message over the bare table, server CPU ms", insert, 0.25, 0.1),
]


def main() -> None:
    """Print the table."""
    results = {name: json.loads((FOLDER / f"{name}.json").read_text()) for name in FILES}
    print("| | measured | required | desired | |\n|---|---|---|---|---|")
    for target in TARGETS:
        print(target.line(results))


if __name__ == "__main__":
    main()
