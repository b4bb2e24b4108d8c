"""Times in JSON."""

from datetime import datetime


def json_time(at: datetime) -> str:
    """A time in UTC as DRF writes it: 2026-10-15T17:24:11.123456Z."""
    return at.isoformat().replace("+00:00", "Z")
