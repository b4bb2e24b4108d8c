"""How long turns' recalls take: counted in the process, added to recall_times every few seconds.

A row counts what all processes recalled in some seconds and in about the same time. All times are
the database's.
"""

import math
import threading
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import accumulate
from typing import Any

from retrieval import queries
from retrieval.later_table import LaterTable
from retrieval.rollout_models import RecallTime
from retrieval.runtime import on_reset

STEP = 1.05  # a bucket's times are within 5 percent
SHORTEST_MS = 0.1  # the first bucket's
KEPT = timedelta(hours=25)
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
MAX_BUCKETS = 300  # of one process and flush; the last one begins at 200,000 s
# Locks the rows of this slot and these buckets, in their order: two processes cannot deadlock.
# After a crash of the database server the last part of a second may be missing.
ADD = """
    SET LOCAL synchronous_commit = off;
    INSERT INTO recall_times AS t (slot, bucket, count, errors, added_tokens)
    SELECT date_bin('10 s', now(), 'epoch'), v.* FROM unnest(
        %(buckets)s::smallint[], %(counts)s::bigint[], %(errors)s::bigint[], %(tokens)s::bigint[]
    ) v (bucket, count, errors, added_tokens)
    ORDER BY v.bucket
    ON CONFLICT (slot, bucket) DO UPDATE SET count = t.count + excluded.count,
        errors = t.errors + excluded.errors, added_tokens = t.added_tokens + excluded.added_tokens
"""
# Reads the rows of this time by the primary key. Locks: nothing.
SINCE = """
    SELECT bucket, sum(count)::bigint, sum(errors)::bigint, sum(added_tokens)::bigint
    FROM recall_times
    WHERE slot > greatest(now() - %(age)s, %(not_before)s)
    GROUP BY bucket ORDER BY bucket
"""
# Locks the rows that it deletes.
PURGE = "DELETE FROM recall_times WHERE slot < now() - %(kept)s"

_table = LaterTable(RecallTime._meta.db_table)
_lock = threading.Lock()
_counts: dict[int, Counter[str]] = {}  # by bucket
on_reset(_counts.clear)


@dataclass(frozen=True)
class Bucket:
    """Recalls that took about as long, from STEP to the power of ``number`` on."""

    number: int
    count: int
    errors: int
    added_tokens: int


@dataclass(frozen=True)
class Figures:
    """Recalls of some time, failed ones included."""

    count: int = 0
    errors: int = 0
    p50_ms: float | None = None
    p95_ms: float | None = None
    added_tokens: int = 0


def record(seconds: float, *, failed: bool = False, added_tokens: int = 0) -> None:
    """Count one recall of a turn. Makes no query."""
    with _lock:
        counts = _counts.setdefault(bucket_of(seconds * 1_000), Counter())
        counts.update(count=1, errors=int(failed), tokens=added_tokens)


def bucket_of(milliseconds: float) -> int:
    number = math.ceil(math.log(max(milliseconds, SHORTEST_MS) / SHORTEST_MS, STEP))
    return min(number, MAX_BUCKETS - 1)


def milliseconds_of(bucket: int) -> float:
    """The middle of the bucket's times."""
    return float(SHORTEST_MS * STEP ** (bucket - 0.5))


def flush() -> bool:
    """Add the counts to the table, by one statement; whether there were any.

    After a failure, and until the table exists, they wait for the next call. A killed process loses
    what it has not added.
    """
    if not _counts or not _table.may_write():
        return False
    with _lock:
        counted = dict(_counts)
        _counts.clear()
    try:
        queries.execute(ADD, _parameters(counted))
    except Exception:
        with _lock:
            for bucket, counts in counted.items():
                _counts.setdefault(bucket, Counter()).update(counts)
        raise
    return True


def _parameters(counted: dict[int, Counter[str]]) -> dict[str, Any]:
    return {
        "buckets": list(counted),
        "counts": [counts["count"] for counts in counted.values()],
        "errors": [counts["errors"] for counts in counted.values()],
        "tokens": [counts["tokens"] for counts in counted.values()],
    }


def purge() -> None:
    """Delete rows that are older than KEPT. One statement."""
    if _table.may_write():
        queries.execute(PURGE, {"kept": KEPT})


def figures(age: timedelta, *, not_before: datetime | None = None) -> Figures:
    """Of all processes, by what they have flushed. One statement on an index."""
    if not _table.may_read():
        return Figures()
    rows = queries.rows(SINCE, {"age": age, "not_before": not_before})
    return summarise([Bucket(*row) for row in rows])


def summarise(buckets: Sequence[Bucket]) -> Figures:
    """``buckets``: in the order of their times."""
    count = sum(bucket.count for bucket in buckets)
    return Figures(
        count,
        sum(bucket.errors for bucket in buckets),
        percentile(buckets, 0.50),
        percentile(buckets, 0.95),
        sum(bucket.added_tokens for bucket in buckets),
    )


def percentile(buckets: Sequence[Bucket], share: float) -> float | None:
    """The milliseconds within which this share of the recalls ended; None without any recall."""
    totals = list(accumulate(bucket.count for bucket in buckets))
    if not totals:
        return None
    wanted = math.ceil(totals[-1] * share)
    place = next(n for n, total in enumerate(totals) if total >= wanted)
    return round(milliseconds_of(buckets[place].number), 1)
