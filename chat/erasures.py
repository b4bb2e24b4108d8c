"""When a user last erased everything, for turns that are stored later than they begin.

It is a mark in rate_windows, which every schema has; a day later ``clear_expired`` deletes it.
"""

from datetime import datetime

from chat.models import RateWindow
from chat.rate_limit import count_hit


def mark_erased(user_id: int) -> None:
    """Note the time, by the database's clock. One statement. Locks: the mark."""
    count_hit(_name(user_id), limit=1, seconds=0)


def was_erased_since(user_id: int, at: datetime) -> bool:
    """One query."""
    marks = RateWindow.objects.filter(name=_name(user_id)).values_list("hits", flat=True)
    return any(hits[-1] >= at for hits in marks)


def _name(user_id: int) -> str:
    return f"erased {user_id}"
