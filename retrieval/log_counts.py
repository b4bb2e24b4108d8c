"""How many errors the servers log: counted in the process, added to log_counts every few seconds.

By minute and kind. A kind is the text of the log call without its values, or the logger's name for
other packages' lines: no content and no secret. Each start of a server is counted too, and which
errors were logged around it.
"""

import logging
import re
import threading
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Max, Q, Sum
from django.utils import timezone

from retrieval import db
from retrieval.later_table import LaterTable
from retrieval.models import LogCount
from retrieval.runtime import on_reset
from retrieval.telemetry import metrics

STARTED = "Application startup complete."  # docs/promises.md, "Log lines"
START_S = 60.0  # an error that is logged this long after a start belongs to it
KEEP_DAYS = 7
MAX_COUNTS = 1_000  # of minutes and kinds, kept while the database is away, or has no table
OWN_LOGGERS = ("chat", "retrieval", "verse")  # their texts are constants: tested
WIDTH = 40  # of a kind, in the report
# The reasons of verse_failures_total, by the beginning of a line; others are "internal".
REASONS = {
    "Error generating embeddings: ": "embedding",
    "Error retrieving relevant context: ": "recall",
    "Database unavailable: ": "database_unavailable",
    "A turn could not be stored: ": "database_unavailable",
    "An answer could not be saved: ": "database_unavailable",
}
PLACEHOLDER = re.compile(r"%[-+ #0-9.]*[a-zA-Z]")
# Locks the rows of these minutes and kinds, in their order: two processes cannot deadlock.
ADD = """
    INSERT INTO log_counts AS c (minute, kind, at_start, count)
    SELECT minute, kind, at_start, count FROM unnest(
        %(minutes)s::timestamptz[], %(kinds)s::text[], %(at_start)s::boolean[], %(counts)s::bigint[]
    ) v (minute, kind, at_start, count)
    ORDER BY minute, kind, at_start
    ON CONFLICT (minute, kind, at_start) DO UPDATE SET count = c.count + excluded.count
"""
# Locks the rows that it deletes. The last start is kept: rag_doctor shows it.
PURGE = """
    DELETE FROM log_counts WHERE minute < now() - %(days)s * interval '1 day'
        AND (kind <> %(started)s
            OR minute < (SELECT max(minute) FROM log_counts WHERE kind = %(started)s))
"""
_table = LaterTable(LogCount._meta.db_table)


class Line(NamedTuple):
    minute: datetime
    kind: str
    at_start: bool


_lock = threading.Lock()
_counts: Counter[Line] = Counter()
_started_at: list[float] = []  # of this process's server; monotonic
on_reset(_counts.clear)


class CountErrors(logging.Handler):
    """Counts records of level ERROR and above, and the line of a start. Makes no query."""

    def emit(self, record: logging.LogRecord) -> None:
        is_start = record.msg == STARTED
        if record.levelno < logging.ERROR and not is_start:
            return
        if not is_start and not _is_known_refusal(record):
            metrics.failed(reason_of(record))
        minute = datetime.fromtimestamp(record.created, UTC).replace(second=0, microsecond=0)
        with _lock:
            if is_start:
                _started_at[:] = [time.monotonic()]
            line = Line(minute, kind_of(record), _is_at_start())
            if line in _counts or len(_counts) < MAX_COUNTS:
                _counts[line] += 1


COUNTER = CountErrors()


def kind_of(record: logging.LogRecord) -> str:
    """The text of the log call with … for values; the logger's name for another package's line."""
    if record.name.partition(".")[0] not in OWN_LOGGERS or not isinstance(record.msg, str):
        return record.name
    return PLACEHOLDER.sub("…", record.msg)


def reason_of(record: logging.LogRecord) -> str:
    """One of ``metrics.REASONS``."""
    reasons = (reason for text, reason in REASONS.items() if kind_of(record).startswith(text))
    return next(reasons, "internal")


def _is_known_refusal(record: logging.LogRecord) -> bool:
    """Django's line for a request that it refused, or for a 502 to 504, whose reason is counted."""
    is_refused = record.name.startswith("django.security")
    return is_refused or getattr(record, "status_code", 500) > 500


def _is_at_start() -> bool:
    return not _started_at or time.monotonic() - _started_at[0] < START_S


def flush() -> None:
    """Add the counts to the table, by one statement; after a failure the next call adds them.

    Until the table exists they wait too: a server may be older than the migration. A killed process
    loses what it has not added.
    """
    if not _counts or not _table.may_write():
        return
    with _lock:
        counted = Counter(_counts)
        _counts.clear()
    try:
        _add(counted)
    except Exception:
        with _lock:
            _counts.update(counted)
        raise


def _add(counted: Counter[Line]) -> None:
    params: dict[str, Any] = {
        "minutes": [line.minute for line in counted],
        "kinds": [line.kind for line in counted],
        "at_start": [line.at_start for line in counted],
        "counts": list(counted.values()),
    }
    with connection.cursor() as cursor:
        cursor.execute(ADD, params)


def purge() -> None:
    """Delete counts that are older than KEEP_DAYS. One statement."""
    if _table.may_write():
        with connection.cursor() as cursor:
            cursor.execute(PURGE, {"days": KEEP_DAYS, "started": STARTED})


def errors_since(age: timedelta, *, at_start: bool = False) -> dict[str, int]:
    """Logged errors of this age at most, by kind, the most frequent first. One statement."""
    rows = LogCount.objects.filter(minute__gt=timezone.now() - age).exclude(kind=STARTED)
    if at_start:
        rows = rows.filter(at_start=True)
    return dict(rows.values_list("kind").annotate(total=Sum("count")).order_by("-total", "kind"))


def last_start() -> datetime | None:
    """The minute in which a server was started last; None if none was counted. One statement."""
    starts = LogCount.objects.aggregate(last=Max("minute", filter=Q(kind=STARTED)))
    last: datetime | None = starts["last"]
    return last


def report() -> dict[str, Any]:
    """``{"hour": {kind: count}, "day": {...}, "last_start"}``. Four statements at most.

    Empty before the table exists.
    """
    if not _table.may_read():
        return {"hour": {}, "day": {}, "last_start": None}
    with db.require_memory():
        started = last_start()
        return {
            "hour": errors_since(timedelta(hours=1)),
            "day": errors_since(timedelta(days=1)),
            "last_start": started and started.isoformat(),
        }


def lines(log: dict[str, Any]) -> list[str]:
    """The report as text."""
    head = f"{'errors in the logs of servers':{WIDTH}}  {'last hour':>13}  {'last day':>12}"
    counts = [
        f"{kind:{WIDTH}}  {log['hour'].get(kind, 0):>13,}  {count:>12,}"
        for kind, count in log["day"].items()
    ]
    return [head, *(counts or ["none"]), f"Last start: {log['last_start'] or 'not counted'}"]
