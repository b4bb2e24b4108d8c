"""What happens to each part in turn: it is killed (or reloaded, or replaced) and comes back.

``reasons``: the failures that clients may see of it, each with its cause. Any other is a fault of
the product.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

from tests.cluster.parts import Cluster
from tests.replicated import copy_to_replica
from tests.support import wait_for

SYNCHRONOUS = "SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'"
KILLED = {
    "connection broken": "the server was killed while it answered",
    "stream cut": "the server was killed while it answered",
    "502": "the server was killed before it answered",
    "409 in_progress": "a repeat, until the killed server's answer is ended (10 to 15 s)",
}
WITHOUT_DATABASE = {
    "503 database_unavailable": "there was no database",
    "event database_unavailable": "there was no database to save the answer",
    "409 in_progress": "a repeat, until the answer that could not be saved is ended",
}


@dataclass
class Outage:
    """``holds_calls``: a text in a call at this moment may be paid for again."""

    name: str
    stop: Callable[[], object]
    start: Callable[[], object] = lambda: None
    reasons: dict[str, str] = field(default_factory=dict)
    holds_calls: bool = False
    began: float = 0.0  # time.monotonic(); the outages go on until the next one
    back: float = 0.0

    def run(self, away_s: float) -> None:
        """Stop the part, start it after ``away_s``, and return when it works again."""
        self.began = time.monotonic()
        self.stop()
        time.sleep(away_s)
        self.start()
        self.back = time.monotonic()


def all_outages(cluster: Cluster) -> list[Outage]:
    """Each part once, the failover last."""
    pooler = partial(Outage, reasons=WITHOUT_DATABASE, holds_calls=True)
    return [
        *(
            Outage(f"server {number} killed", server.kill, server.start, KILLED, holds_calls=True)
            for number, server in enumerate(cluster.servers, 1)
        ),
        Outage(
            "server 1 restarted",
            lambda: cluster.servers[0].stop_gently(cluster.balancer),
            cluster.servers[0].start,
        ),
        *(
            Outage(f"worker {number} killed", worker.kill, worker.start, holds_calls=True)
            for number, worker in enumerate(cluster.workers, 1)
        ),
        pooler("PgBouncer killed", cluster.pooler.stop, cluster.pooler.start),
        Outage("replica killed", cluster.replica.kill, cluster.replica.start),
        Outage("balancer reloaded", cluster.balancer.reload),
        pooler("primary killed", cluster.primary.kill, cluster.primary.start),
        failover(cluster),
    ]


def failover(cluster: Cluster) -> Outage:
    """The primary dies, and its replica takes its place; the old primary becomes the replica."""
    return Outage(
        "failover to the replica",
        partial(lose_primary, cluster),
        partial(promote_replica, cluster),
        WITHOUT_DATABASE,
        holds_calls=True,
    )


def lose_primary(cluster: Cluster) -> None:
    """Kill it. Before, a commit was acknowledged only when the replica had it, too."""
    cluster.primary.run("ALTER SYSTEM SET synchronous_standby_names = '*'")
    cluster.primary.run("SELECT pg_reload_conf()")
    wait_for(lambda: cluster.primary.run(SYNCHRONOUS))
    cluster.primary.kill()


def promote_replica(cluster: Cluster) -> None:
    """What an operator does, or their tool; docs/howto/read-from-a-replica.md lists the steps."""
    cluster.replica.run("SELECT pg_promote()")
    cluster.pooler.move_to(cluster.replica)
    cluster.primary, cluster.replica = cluster.replica, cluster.primary
    copy_to_replica(cluster.primary, cluster.replica)
    cluster.replica.start()
