"""Timestamps without a value in Python: ``infinity``, ``-infinity``, years before 1 and over 9999.

psycopg raises DataError for them, so one such row would make each list with it fail. They are read
as the latest or the earliest time of Python's, which are written as ``infinity`` and ``-infinity``:
so a page of a list can end at such a row.
"""

from datetime import UTC, datetime, timedelta
from functools import cache
from typing import Any

from psycopg import DataError
from psycopg.adapt import AdaptersMap, Loader
from psycopg.postgres import types
from psycopg.pq import Format
from psycopg.types.datetime import DatetimeDumper

LATEST = datetime.max.replace(tzinfo=UTC)
EARLIEST = datetime.min.replace(tzinfo=UTC)
INFINITE = {LATEST: b"infinity", EARLIEST: b"-infinity"}
EPOCH = datetime(
    2000, 1, 1, tzinfo=UTC
)  # of PostgreSQL: in binary form a time is microseconds since


class InfiniteTimeDumper(DatetimeDumper):
    def dump(self, obj: datetime) -> Any:
        return INFINITE.get(obj) or super().dump(obj)


class BinaryTimeLoader(Loader):
    """Times in UTC, in a fifth of the time that their text takes."""

    format = Format.BINARY

    def load(self, data: Any) -> datetime:
        microseconds = int.from_bytes(data, "big", signed=True)
        try:
            return EPOCH + timedelta(microseconds=microseconds)
        except OverflowError:
            return EARLIEST if microseconds < 0 else LATEST


@cache
def with_infinite_times(adapters: AdaptersMap) -> AdaptersMap:
    """The adapters of a connection, extended."""
    tz_loader: Any = adapters.get_loader(types["timestamptz"].oid, Format.TEXT)

    class InfiniteTimeLoader(tz_loader):  # type: ignore[misc] # Django's, with its time zone
        def load(self, data: Any) -> datetime:
            try:
                return super().load(data)  # type: ignore[no-any-return]
            except DataError:
                text = bytes(data)
                return EARLIEST if text.startswith(b"-") or text.endswith(b"BC") else LATEST

    extended = AdaptersMap(adapters)
    extended.register_loader("timestamptz", InfiniteTimeLoader)
    extended.register_loader("timestamptz", BinaryTimeLoader)
    extended.register_dumper(datetime, InfiniteTimeDumper)
    return extended
