"""Runs the tests of rows.toml's rows and writes docs/reliability.md: ``make faults``.

    python -m tests.faults.report [NUMBER ...] [--processes 2]

With numbers it runs only these rows and prints them; the page is written by a run of all. The exit
code is 1 if a test failed. It takes about ten minutes.
"""

import argparse
import subprocess
import sys
import tempfile
import tomllib
import xml.etree.ElementTree as ElementTree
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from tests.support import ROOT

ROWS = Path(__file__).with_name("rows.toml")
PAGE = ROOT / "docs" / "reliability.md"
HEAD = """# What does Verse survive?

Each row is a fault and what must be seen of it. A row is *seen* if all of its tests have passed in
the run that wrote this page: real PostgreSQL, real server processes that are killed, real HTTP
servers that misbehave. Run it yourself with `make faults` (about ten minutes), or a few rows with
`.venv/bin/python -m tests.faults.report 24 26`. The rows and their tests are listed in
`tests/faults/rows.toml`; do not edit this page, `make faults` writes it.
"""


@dataclass(frozen=True)
class Row:
    """A fault. ``tests``: pytest's ids without parameters; ``unseen``: why there are none."""

    number: int
    family: str
    fault: str
    seen: str
    tests: list[str] = field(default_factory=list)
    unseen: str = ""


@dataclass
class Outcome:
    """How often a test passed and failed, over its parameters, and the figures it recorded."""

    passed: int = 0
    failed: int = 0
    figures: list[str] = field(default_factory=list)


def all_rows() -> list[Row]:
    return [Row(**row) for row in tomllib.loads(ROWS.read_text())["rows"]]


def run(rows: Iterable[Row], processes: int) -> dict[str, Outcome]:
    """The outcome of each row's tests, by id."""
    ids = sorted({test for row in rows for test in row.tests})
    with tempfile.NamedTemporaryFile(suffix=".xml") as report:
        command = [sys.executable, "-m", "pytest", "-m", "soak or not soak", f"-n{processes}"]
        subprocess.run([*command, f"--junitxml={report.name}", *ids], cwd=ROOT, check=False)
        return outcomes(ElementTree.parse(report.name).iter("testcase"), ids)


def outcomes(cases: Iterable[ElementTree.Element], ids: list[str]) -> dict[str, Outcome]:
    """Of JUnit's test cases, whose class is the file's path with dots."""
    tests = {_case_name(test): test for test in ids}
    results: dict[str, Outcome] = defaultdict(Outcome)
    for case in cases:
        name = f"{case.get('classname')}.{str(case.get('name')).partition('[')[0]}"
        result = results[tests[name]]
        for entry in case.iterfind("properties/property[@name='figure']"):
            result.figures.append(str(entry.get("value")))
        if case.find("failure") is None and case.find("error") is None:
            result.passed += case.find("skipped") is None
        else:
            result.failed += 1
    return results


def _case_name(test: str) -> str:
    path, _, name = test.partition("::")
    return f"{path.removesuffix('.py').replace('/', '.')}.{name}"


def line_of(row: Row, results: dict[str, Outcome]) -> str:
    """The row of the page's table."""
    own = [results.get(test, Outcome()) for test in row.tests]
    if row.unseen:
        state = f"**not seen**: {row.unseen}"
    elif all(outcome.passed and not outcome.failed for outcome in own):
        figures = [figure for outcome in own for figure in outcome.figures]
        state = "; ".join([f"seen, {sum(outcome.passed for outcome in own)} tests", *figures])
    else:
        state = "**failed**"
    return f"| {row.number} | {row.fault} | {row.seen} | {state} |"


def page_of(rows: list[Row], results: dict[str, Outcome]) -> str:
    """The page, by family in the order of the first rows."""
    seen = sum("| seen" in line_of(row, results) for row in rows)
    lines = [HEAD, f"{datetime.now(UTC):%Y-%m-%d}: {seen} of {len(rows)} rows are seen.", ""]
    for family in dict.fromkeys(row.family for row in rows):
        lines += [
            f"## {family}",
            "",
            "| # | fault | what is seen | this run |",
            "|---|---|---|---|",
        ]
        lines += [line_of(row, results) for row in rows if row.family == family]
        lines.append("")
    return "\n".join(lines)


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.faults.report", description=__doc__)
    parser.add_argument("numbers", type=int, nargs="*", help="rows to run; all if none is named")
    parser.add_argument("--processes", type=int, default=2, help="of pytest (default: 2)")
    options = parser.parse_args()
    rows = [row for row in all_rows() if row.number in options.numbers or not options.numbers]
    results = run(rows, options.processes)
    if not options.numbers:
        PAGE.write_text(page_of(rows, results))
    lines = [line_of(row, results) for row in rows]
    print("\n".join(lines))  # noqa: T201
    return int(any("**failed**" in line for line in lines))


if __name__ == "__main__":
    sys.exit(main())
