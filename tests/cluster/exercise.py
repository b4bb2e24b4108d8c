"""Runs the checks and the outages on a cluster, and says what became of turns and money."""

import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from statistics import quantiles
from typing import Any

from fake_openai import FakeOpenAI
from tests.cluster.api_checks import CHECKS
from tests.cluster.audit import (
    Line,
    Purchases,
    lines_of,
    lost_turns,
    purchases,
    unexplained_failures,
    wait_until_embedded,
)
from tests.cluster.outages import Outage
from tests.cluster.parts import running_cluster
from tests.cluster.site import Site
from tests.cluster.traffic import Traffic

OTHERS = ["alice", "bob"]  # of the checks


@dataclass
class Result:
    """``strange``: failures without a cause that is known of the outage."""

    lines: list[Line]
    lost: list[str]
    bought: Purchases
    strange: list[str]
    late: int

    @property
    def is_good(self) -> bool:
        return not (self.lost or self.bought.unexplained or self.strange)

    @property
    def acknowledged(self) -> int:
        return sum(line.turns for line in self.lines)

    def as_json(self) -> dict[str, Any]:
        return {
            "parts": [
                {
                    "name": line.name,
                    "operations": line.operations,
                    "requests": line.attempts,
                    "failed": dict(line.failed),
                    "p95_s": p95(line.seconds),
                    "longest_s": round(line.longest_s, 2),
                }
                for line in self.lines
            ],
            "turns": self.acknowledged,
            "lost": self.lost,
            "texts": self.bought.texts,
            "calls": self.bought.calls,
            "paid_again": dict(self.bought.again),
            "paid_again_unexplained": self.bought.unexplained,
            "unexplained_failures": self.strange,
            "without_idle_user": self.late,
        }


def p95(seconds: list[float]) -> float:
    return round(quantiles(seconds, n=20)[-1], 2) if len(seconds) > 1 else 0.0


def user_names(count: int) -> list[str]:
    return [f"user{number}" for number in range(count)]


@contextmanager
def started(users: int) -> Iterator[Site]:
    """A cluster with so many users, and those of the checks."""
    with FakeOpenAI() as model, running_cluster(model, OTHERS + user_names(users)) as cluster:
        site = Site(cluster)
        try:
            yield site
        finally:
            site.close()


def check_api(site: Site) -> Iterator[tuple[str, str]]:
    """Each check's name, and what failed in it or an empty text."""
    for check in CHECKS:
        failure = ""
        try:
            check(site)
        except Exception as error:  # noqa: BLE001 - reported as a failed check
            failure = f"{type(error).__name__}: {error}"
        yield check.__name__.replace("_", " "), failure


def exercise(
    site: Site,
    outages: Iterable[Outage],
    *,
    users: int,
    rate: float,
    away_s: float,
    between_s: float,
    say: Any = lambda _line: None,
) -> Result:
    """Send traffic, and let the outages happen one after the other."""
    outages = list(outages)
    traffic = Traffic(site, user_names(users), rate)
    with traffic.running():
        time.sleep(between_s)
        for outage in outages:
            say(f"{outage.name} …")
            outage.run(away_s)
            time.sleep(between_s)
    say("waiting until all messages are embedded …")
    wait_until_embedded(traffic)
    lines = lines_of(traffic, outages)
    return Result(
        lines,
        lost_turns(traffic),
        purchases(site.cluster, outages),
        unexplained_failures(lines, outages),
        traffic.late,
    )
