"""Memory's state for a page that must be quick whatever the tables' sizes: no whole table is read.

Counts stop at MAX_COUNTED rows of an index; the number of messages is the planner's estimate, and
that of messages which no backfill has seen is one from MAX_SAMPLED of them.
``retrieval.status`` counts exactly.
"""

from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Any

from django.conf import settings
from django.db.models import Sum
from django.utils import timezone
from psycopg import sql

from retrieval import current_model, db, status
from retrieval.backfill import pending
from retrieval.embeddings import embedding_service, usage
from retrieval.message_tables import MessageTable
from retrieval.models import EmbeddingModel, EmbeddingUsage, RecallMeasurement, message_tables
from retrieval.rollout import rollout_report

MAX_COUNTED = 10_000
MAX_SAMPLED = 200
MEASUREMENTS = 90  # a quarter of a year of daily runs
DAYS = 30  # of costs
# Of few messages their number, of more the planner's estimate. Locks: none.
ESTIMATE = sql.SQL("""
    SELECT CASE WHEN counted.rows < %(limit)s THEN counted.rows ELSE greatest(
        counted.rows, (SELECT reltuples FROM pg_catalog.pg_class
            WHERE oid = pg_catalog.to_regclass(%(name)s)))::bigint END
    FROM (SELECT count(*) AS rows FROM (SELECT FROM {table} LIMIT %(limit)s) t) counted
""")
# Never run. Its plan holds the planner's estimate of a table's messages with the current model.
EMBEDDED = sql.SQL("""
    EXPLAIN (FORMAT JSON) SELECT FROM message_memories p
    WHERE (p.id & 1) = {kind_bit} AND p.model = {model}
""")
# So many rows by an index, how many of their messages are neither switched off nor tainted, and
# when the first of these was written. Messages are looked up by primary key. Locks: none.
COUNT = sql.SQL("""
    SELECT count(*), count(*) FILTER (WHERE is_on), min(created_at) FILTER (WHERE is_on)
    FROM (
        SELECT p.created_at, {remembered} AND {not_tainted} AS is_on
        FROM (
            SELECT p.id, p.created_at FROM message_memories p
            WHERE {condition} AND (p.id & 1) = {kind_bit} LIMIT %(limit)s
        ) p LEFT JOIN LATERAL (SELECT * FROM {table} m WHERE m.id = p.id >> 1 LIMIT 1) m ON true
    ) p
""")
# Of messages with evenly spread ids: how many, how many of them have no row in message_memories and
# would be pending with one, and when the first of these was written. Lookups by primary key: a
# NOT EXISTS could become a join that reads all. Locks: none.
MISSING = sql.SQL("""
    SELECT count(*), count(*) FILTER (WHERE is_missing), min(created_at) FILTER (WHERE is_missing)
    FROM (
        SELECT m.created_at, m.content <> ''
            AND (SELECT p.id FROM message_memories p WHERE p.id = {message_ref}) IS NULL
            AND {remembered} AND {not_tainted} AS is_missing
        FROM (
            SELECT DISTINCT ON (m.id) m.*
            FROM (SELECT min(id) AS low, max(id) AS high FROM {table}) ids
            CROSS JOIN generate_series(low, high, (high - low) / %(limit)s + 1) point
            CROSS JOIN LATERAL (
                SELECT * FROM {table} m WHERE m.id >= point ORDER BY m.id LIMIT 1) m
        ) m
    ) m
""")
IS_PENDING = sql.SQL("{model} AND p.embedding_error IS NULL")
# A vector that came later, such as a repeated turn's, ends it.
IS_SET_ASIDE = sql.SQL("""
    p.embedding_error IS NOT NULL AND (
        p.model IS NULL OR p.model IS DISTINCT FROM (SELECT id FROM embedding_models WHERE current))
""")


@dataclass(frozen=True)
class Counted:
    """``count`` messages; ``has_more``: so many rows were looked at, and there are others.

    ``oldest`` is the time of the first of them, None without any.
    """

    count: int = 0
    has_more: bool = False
    oldest: datetime | None = None
    looked_at: int = 0

    def __add__(self, other: "Counted") -> "Counted":
        times = [counted.oldest for counted in (self, other) if counted.oldest]
        has_more = self.has_more or other.has_more
        return Counted(
            self.count + other.count,
            has_more,
            min(times, default=None),
            self.looked_at + other.looked_at,
        )


@dataclass(frozen=True)
class TableOverview:
    """A message table: about how many messages, how many pending, how many set aside.

    ``percent``: about how many are embedded, by the planner's estimate if counting has stopped.
    """

    name: str
    about: int
    pending: Counted
    failed: Counted
    percent: float


@dataclass(frozen=True)
class Cost:
    """What was paid on a day."""

    day: date
    usd: float


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
    costs: list[Cost]  # of the last DAYS, oldest first, days without a call too
    measurements: list[RecallMeasurement]  # oldest first
    rollout: list[str]  # lines


def collect() -> Overview:
    """Some twenty statements. Raises NoMemory."""
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
        costs=_costs(today),
        measurements=list(latest)[::-1],
        rollout=rollout_report.lines(rollout_report.collect()),
    )


def _table(table: MessageTable) -> TableOverview:
    waiting = count_missing(table) + count_pending(table)
    about, failed = _about(table), count_set_aside(table)
    return TableOverview(
        table.table, about, waiting, failed, _percent(table, about, waiting + failed)
    )


def _about(table: MessageTable) -> int:
    params = {"name": table.table, "limit": MAX_COUNTED}
    return int(db.execute(ESTIMATE.format(**table.names), params)[0][0])


def count_pending(table: MessageTable) -> Counted:
    """The table's pending messages that have a row in message_memories.

    Statements: one, and one for each model with vectors.
    """
    waiting = Counted()
    for model in pending.models_of_pending():
        condition = IS_PENDING.format(model=pending.condition_of(table, model))
        waiting += _count(table, condition, model, limit=MAX_COUNTED - waiting.looked_at)
    return waiting


def count_missing(table: MessageTable) -> Counted:
    """About how many of the table's pending messages have no row in message_memories.

    They are older than memory; the first backfill gives them their rows. Two statements at most.
    """
    statement = pending.for_table(MISSING, table)
    ((sampled, missing, oldest),) = db.execute(statement, {"limit": MAX_SAMPLED})
    if not missing:
        return Counted()
    return Counted(round(_about(table) * missing / sampled), oldest=oldest)


def count_set_aside(table: MessageTable) -> Counted:
    """The table's messages that the service refused. One statement."""
    return _count(table, IS_SET_ASIDE, None, limit=MAX_COUNTED)


def _count(
    table: MessageTable, condition: sql.Composable, model: int | None, *, limit: int
) -> Counted:
    if limit <= 0:
        return Counted(has_more=True)
    statement = pending.for_table(COUNT, table, condition=condition)
    params = {"limit": limit, "model": model, "after": 0}
    ((looked_at, count, oldest),) = db.execute(statement, params)
    return Counted(count, looked_at == limit, oldest, looked_at)


def _percent(table: MessageTable, about: int, waiting: Counted) -> float:
    """Exact but for the number of messages, or by the planner's estimate if counting stopped."""
    if not waiting.has_more:
        return status.percent(max(about - waiting.count, 0), about)
    model = EmbeddingModel.objects.filter(current=True).values_list("pk", flat=True).first()
    statement = EMBEDDED.format(model=sql.Literal(model), **table.names)
    (((plan,),),) = db.execute(statement, {})
    return status.percent(min(plan["Plan"]["Plan Rows"], about), about)


def _costs(today: date) -> list[Cost]:
    """One statement."""
    first = today - timedelta(days=DAYS - 1)
    paid = EmbeddingUsage.objects.filter(day__gte=first, outcome=usage.OK)
    by_day = dict(paid.values("day").annotate(usd=Sum("cost_usd")).values_list("day", "usd"))
    days = (first + timedelta(days=number) for number in range(DAYS))
    return [Cost(day, float(by_day.get(day, 0))) for day in days]


def _cost_since(day: date) -> float:
    paid = EmbeddingUsage.objects.filter(day__gte=day, outcome=usage.OK)
    return float(paid.aggregate(usd=Sum("cost_usd"))["usd"] or 0)
