"""Memory's state for a page that must be quick whatever the tables' sizes: no whole table is read.

Counts stop at MAX_COUNTED; the number of messages is the planner's estimate. ``retrieval.status``
counts exactly.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone
from psycopg import sql

from retrieval import current_model, db, status
from retrieval.embeddings import embedding_service, usage
from retrieval.message_tables import MessageTable
from retrieval.models import EmbeddingUsage, RecallMeasurement, message_tables

MAX_COUNTED = 10_000  # counted in milliseconds by the indexes of pending and failed rows
MEASUREMENTS = 90  # a quarter of a year of daily runs
# The planner's estimate, -1 before the first ANALYZE; what is pending or set aside, by their
# indexes; when the pending one with the lowest id was written. Locks: none.
COUNTS = sql.SQL("""
    SELECT (SELECT greatest(reltuples, 0)::bigint FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass({name})),
        (SELECT count(*) FROM (SELECT FROM message_memories
            WHERE model IS NULL AND (id & 1) = {kind_bit} AND embedding_error IS NULL
            LIMIT %(limit)s) p),
        (SELECT count(*) FROM (SELECT FROM message_memories
            WHERE embedding_error IS NOT NULL AND (id & 1) = {kind_bit} LIMIT %(limit)s) f),
        (SELECT created_at FROM message_memories
            WHERE model IS NULL AND (id & 1) = {kind_bit} AND embedding_error IS NULL
            ORDER BY model, id & 1, id LIMIT 1)
""")


@dataclass(frozen=True)
class TableOverview:
    """``pending`` and ``failed`` are at most MAX_COUNTED + 1: more than MAX_COUNTED."""

    name: str
    about: int
    pending: int
    failed: int
    oldest_pending: datetime | None


@dataclass(frozen=True)
class Overview:
    """Everything on the page. ``budget_usd`` is None without EMBEDDING_BUDGET_USD."""

    tables: list[TableOverview]
    indexes: list[dict[str, Any]]
    model: str | None
    configured_model: str | None
    today_usd: float
    month_usd: float
    budget_usd: float | None
    measurements: list[RecallMeasurement]  # oldest first


def collect() -> Overview:
    """Nine statements. Raises NoMemory."""
    today = timezone.now().date()
    latest = RecallMeasurement.objects.order_by("-measured_at")[:MEASUREMENTS]
    return Overview(
        tables=[_table(table) for table in message_tables()],
        indexes=status.indexes(),
        model=current_model.current_model(),
        configured_model=embedding_service.configured_name(),
        today_usd=_cost_since(today),
        month_usd=_cost_since(today.replace(day=1)),
        budget_usd=settings.EMBEDDING_BUDGET_USD,
        measurements=list(latest)[::-1],
    )


def _table(table: MessageTable) -> TableOverview:
    statement = COUNTS.format(name=sql.Literal(table.table), **table.names)
    ((about, pending, failed, oldest),) = db.execute(statement, {"limit": MAX_COUNTED + 1})
    return TableOverview(table.table, about, pending, failed, oldest)


def _cost_since(day: date) -> float:
    paid = EmbeddingUsage.objects.filter(day__gte=day, outcome=usage.OK)
    return float(paid.aggregate(usd=Sum("cost_usd"))["usd"] or 0)
