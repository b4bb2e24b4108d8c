"""Two servers, two workers, PgBouncer, a primary and a replica behind HAProxy.

Needs ``apt-get install haproxy pgbouncer``.
"""

from collections.abc import Iterator

import pytest

from tests.cluster.api_checks import CHECKS
from tests.cluster.exercise import Result, exercise, started
from tests.cluster.outages import Outage, all_outages, failover
from tests.cluster.site import Site
from tests.support import wait_for

pytestmark = pytest.mark.soak
USERS = 10
ALONE, AGAIN = "The read replica is left alone", "The read replica is read from again"


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    with started(USERS) as site:
        yield site


def exercised(site: Site, *outages: Outage) -> Result:
    """Traffic during the outages, at a rate that a slow machine can keep."""
    return exercise(site, outages, users=USERS, rate=10, away_s=2, between_s=3)


def outages_of_replica(site: Site) -> list[tuple[int, int]]:
    """How often each server has said that it leaves the replica alone, and reads it again."""
    return [(server.log.count(ALONE), server.log.count(AGAIN)) for server in site.cluster.servers]


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_the_api_works_through_the_balancer(check: object, site: Site) -> None:
    assert callable(check)
    check(site)


def test_no_turn_is_lost_while_each_part_is_killed(site: Site) -> None:
    *outages, _failover = all_outages(site.cluster)
    result = exercised(site, *outages)
    assert result.is_good, result.as_json()
    assert result.acknowledged > USERS
    assert all(line.operations for line in result.lines)


def test_no_acknowledged_turn_is_lost_in_a_failover(site: Site) -> None:
    """The replica that is left alone is the new primary; the old one is the replica then."""
    before = outages_of_replica(site)
    result = exercised(site, failover(site.cluster))
    assert result.is_good, result.as_json()
    assert result.acknowledged > USERS
    once_more = [(alone + 1, again + 1) for alone, again in before]
    wait_for(lambda: outages_of_replica(site) == once_more)
