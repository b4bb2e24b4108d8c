"""The figures of GET /metrics that are read from the database: the same for all servers.

A process reads them for a scrape, and again for one that comes MAX_AGE_S later. Up to 10,000
pending rows are looked up (retrieval/overview.py), of more the indexes are counted.
"""

import logging
import math
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from django.db import Error, transaction
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from psycopg import sql

from retrieval import current_model, db, overview, queries, status
from retrieval.db_errors import error_name
from retrieval.embeddings import embedding_service
from retrieval.models import RecallMeasurement, message_tables
from retrieval.overview import Counted
from retrieval.rollout import state
from retrieval.runtime import Expiring
from retrieval.sql_files import read_statement

logger = logging.getLogger(__name__)
MAX_AGE_S = 15.0  # docs/promises.md promises 30 s
MAX_STATEMENT_S = 5  # Prometheus waits 10 s for a scrape
COUNT_BY_INDEX = read_statement(Path(__file__).with_name("pending_rows.sql"))
NO_VECTOR = sql.SQL("""
    (p.model IS NULL OR p.model IS DISTINCT FROM (SELECT id FROM embedding_models WHERE current))
""")
# Conversations, but those of users who are switched off. The user of a message, since a worker's
# role may not read that of a conversation.
SWITCHED_OFF = sql.SQL("""
    SELECT owner.user_id, c.id * 2 + {kind_bit} AS ref FROM {conversations} c CROSS JOIN LATERAL (
        SELECT m.user_id FROM {table} m WHERE m.{conversation} = c.id LIMIT 1
    ) owner WHERE NOT c.memory
        AND owner.user_id NOT IN (SELECT user_id FROM memory_switches WHERE NOT enabled)
""")
# Until the next ANALYZE after a backfill the planner would read the table: 330 ms, not 6, of
# 1,000,000 rows with 7 pending.
SET_LIMITS = """
    SELECT set_config('statement_timeout', %(seconds)s || 's', true),
        set_config('enable_seqscan', 'off', true),
        set_config('max_parallel_workers_per_gather', '0', true)
"""


@dataclass(frozen=True)
class Reading:
    """Numbers of messages; index name → valid; the others from 0 to 1.

    ``recall`` is the last measurement's, 0 before the first one. ``rollout_share``: of the users,
    those who are given memories.
    """

    pending: float = 0
    set_aside: float = 0
    recall: float = 0
    model_matches: float = 1
    rollout_share: float = 1
    fuse_blown: float = 0
    indexes: dict[str, bool] = field(default_factory=dict)


# While the database is away.
UNKNOWN = Reading(math.nan, math.nan, math.nan, math.nan, math.nan, math.nan)
HELP = {
    "verse_pending_rows": "Messages that wait for their embeddings, in the whole database.",
    "verse_set_aside_rows": "Messages that the embedding service refused.",
    "verse_sampled_recall": "Recall of the last measurement against an exact search; 0: none yet.",
    "verse_model_matches": "0 if the settings name another model than the stored vectors.",
    "verse_rollout_share": "Share of the users who are given memories, from 0 to 1.",
    "verse_fuse_blown": "1 if recall's fuse has turned memory dark, until a state is set.",
    "verse_index_valid": "1 if the index exists and was built to its end.",
}


class DatabaseFigures(Collector):
    """Reads the figures when the registry is rendered. In a step, not on the event loop."""

    def __init__(self) -> None:
        self._latest: Expiring[Reading] = Expiring()
        self._reading = threading.Lock()
        self._is_away = False

    def collect(self) -> Iterator[Metric]:
        with self._reading:  # two scrapes at once read once
            figures = self._latest.get() or self._latest.set(self._read(), seconds=MAX_AGE_S)
        *values, indexes = vars(figures).values()  # in the order of HELP
        for name, value in zip(HELP, values, strict=False):
            yield GaugeMetricFamily(name, HELP[name], value=value)
        valid = GaugeMetricFamily("verse_index_valid", HELP["verse_index_valid"], labels=["index"])
        for name, is_valid in indexes.items():
            valid.add_metric([name], is_valid)
        yield valid

    def _read(self) -> Reading:
        """One line in the log for each outage of the database."""
        try:
            figures = read()
        except Error as error:
            if not self._is_away:
                logger.warning("Pending messages cannot be counted: %s", error_name(error))
            self._is_away = True
            return UNKNOWN
        self._is_away = False
        return figures


def read() -> Reading:
    """Some twelve statements of at most MAX_STATEMENT_S each. Raises django.db.Error."""
    try:
        with transaction.atomic():
            queries.execute(SET_LIMITS, {"seconds": MAX_STATEMENT_S})
            return _read()
    except db.NoMemory:
        return Reading()


def _read() -> Reading:
    measured = RecallMeasurement.objects.order_by("-measured_at").values_list("recall", flat=True)
    stored, configured = current_model.current_model(), embedding_service.configured_name()
    missing = sum(map(overview.count_missing, message_tables()), Counted())
    waiting = sum(map(overview.count_pending, message_tables()), Counted())
    set_aside = sum(map(overview.count_set_aside, message_tables()), Counted())
    rollout = state.read()
    by_index = count_by_index() if waiting.has_more else 0
    return Reading(
        pending=missing.count + max(waiting.count, by_index),
        set_aside=set_aside.count,
        recall=measured.first() or 0,
        model_matches=float(None in (stored, configured) or stored == configured),
        rollout_share=rollout.share,
        fuse_blown=float(rollout.blown_at is not None),
        indexes={index["name"]: index["valid"] for index in status.indexes()},
    )


def count_by_index() -> int:
    """How many messages are pending: nearly, and without reading any. One statement."""
    return int(queries.value(statement_by_index()))


def statement_by_index() -> sql.Composed:
    """The statement of ``count_by_index``; a test checks its plan."""
    hidden = [SWITCHED_OFF.format(**table.names) for table in message_tables()]
    switched_off = sql.SQL(" UNION ALL ").join(hidden)
    return COUNT_BY_INDEX.format(switched_off=switched_off, no_vector=NO_VECTOR)
