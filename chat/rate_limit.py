"""Sliding-window rate limits, counted in PostgreSQL so that they hold for all processes.

``count_message`` counts posted messages, chat/auth/login_rate_limit.py login attempts, and
chat/answers/followers.py stores its marks as hits.
"""

import math

from django.conf import settings
from django.db import connection

from chat.errors import Throttled

# The row holds the times of the hits within the window; a hit over the limit changes nothing.
# Locks: the row, so that two processes count one after the other.
COUNT = """
    INSERT INTO rate_windows AS w (name, hits) VALUES (%(name)s, ARRAY[clock_timestamp()])
    ON CONFLICT (name) DO UPDATE SET hits = array(
        SELECT hit FROM unnest(w.hits) hit
        WHERE hit > clock_timestamp() - make_interval(secs => %(seconds)s)
    ) || clock_timestamp()
    WHERE (
        SELECT count(*) FROM unnest(w.hits) hit
        WHERE hit > clock_timestamp() - make_interval(secs => %(seconds)s)
    ) < %(limit)s
    RETURNING 1
"""
# Locks: nothing.
WAIT = """
    SELECT extract(epoch FROM min(hit) + make_interval(secs => %(seconds)s) - clock_timestamp())
    FROM rate_windows, unnest(hits) hit
    WHERE name = %(name)s AND hit > clock_timestamp() - make_interval(secs => %(seconds)s)
"""
# Locks: the deleted rows.
DELETE_EXPIRED = """
    DELETE FROM rate_windows WHERE hits[cardinality(hits)] < now() - interval '1 day'
"""


def count_hit(name: str, *, limit: int, seconds: int) -> int | None:
    """Count one hit. None if it is within the limit, else whole seconds until the next is allowed.

    Two statements at most. A transaction that is rolled back takes its hit back.
    """
    values: dict[str, str | int] = {"name": name, "limit": limit, "seconds": seconds}
    with connection.cursor() as cursor:
        cursor.execute(COUNT, values)
        if cursor.fetchone():
            return None
        cursor.execute(WAIT, values)
        wait_s = cursor.fetchone()[0]
    return int(max(math.ceil(float(wait_s or 0)), 1))


def count_message(user_id: int) -> None:
    """Count a message that the user posts. Raises Throttled: over THROTTLE_MESSAGES."""
    rate = settings.THROTTLE_MESSAGES
    if rate is None:
        return
    wait_s = count_hit(f"messages {user_id}", limit=rate.limit, seconds=rate.seconds)
    if wait_s is not None:
        raise Throttled(retry_after_s=wait_s)


def delete_expired_windows() -> int:
    """Delete windows without a hit in the last day, the longest window; returns how many."""
    with connection.cursor() as cursor:
        cursor.execute(DELETE_EXPIRED)
        return int(cursor.rowcount)
