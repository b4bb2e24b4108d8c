"""Memory's state for a page that must be quick whatever the tables' sizes: no whole table is read.

Counts stop at MAX_COUNTED rows of an index; the number of messages is the planner's estimate.
``retrieval.status`` counts exactly.
"""

from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone
from psycopg import sql

from retrieval import current_model, db, status
from retrieval.backfill import pending
from retrieval.embeddings import embedding_service, usage
from retrieval.message_tables import MessageTable
from retrieval.models import EmbeddingUsage, RecallMeasurement, message_tables

MAX_COUNTED = 10_000
MEASUREMENTS = 90  # a quarter of a year of daily runs
# The planner's estimate, -1 before the first ANALYZE. Locks: none.
ESTIMATE = """
    SELECT greatest(reltuples, 0)::bigint FROM pg_catalog.pg_class
    WHERE oid = pg_catalog.to_regclass(%(name)s)
"""
# So many rows by an index, how many of their messages are not switched off, and when the first of
# these was written. Locks: none.
COUNT = sql.SQL("""
    WITH candidates AS MATERIALIZED (
        SELECT p.id FROM message_memories p
        WHERE {condition} AND (p.id & 1) = {kind_bit} LIMIT %(limit)s
    )
    SELECT (SELECT count(*) FROM candidates), count(*), min(m.created_at)
    FROM candidates p JOIN {table} m ON m.id = p.id >> 1 WHERE {remembered}
""")
IS_PENDING = sql.SQL("{model} AND p.embedding_error IS NULL")
IS_SET_ASIDE = sql.SQL("p.embedding_error IS NOT NULL")


@dataclass(frozen=True)
class Counted:
    """``count`` messages; ``has_more``: so many rows were looked at, and there are others.

    ``oldest`` is the time of the first of them, None without any.
    """

    count: int = 0
    has_more: bool = False
    oldest: datetime | None = None

    def __add__(self, other: "Counted") -> "Counted":
        times = [counted.oldest for counted in (self, other) if counted.oldest]
        has_more = self.has_more or other.has_more
        return Counted(self.count + other.count, has_more, min(times, default=None))


@dataclass(frozen=True)
class TableOverview:
    """A message table: about how many messages, how many pending, how many set aside."""

    name: str
    about: int
    pending: Counted
    failed: Counted


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
    """Some fifteen statements. Raises NoMemory."""
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
    ((about,),) = db.execute(ESTIMATE, {"name": table.table})
    waiting = [
        _count(table, IS_PENDING.format(model=pending.condition_of(table, model)), model)
        for model in pending.models_of_pending()
    ]
    return TableOverview(
        table.table, about, sum(waiting, start=Counted()), _count(table, IS_SET_ASIDE, None)
    )


def _count(table: MessageTable, condition: sql.Composable, model: int | None) -> Counted:
    statement = pending.for_table(COUNT, table, condition=condition)
    params = {"limit": MAX_COUNTED, "model": model, "after": 0}
    ((rows, count, oldest),) = db.execute(statement, params)
    return Counted(count, rows == MAX_COUNTED, oldest)


def _cost_since(day: date) -> float:
    paid = EmbeddingUsage.objects.filter(day__gte=day, outcome=usage.OK)
    return float(paid.aggregate(usd=Sum("cost_usd"))["usd"] or 0)
