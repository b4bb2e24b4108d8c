"""Count in PostgreSQL what must not happen too often, so that a limit is one for all processes."""

import math

from django.db import connection

# One statement, so that the row's lock makes two processes count one after the other. The row holds the times of
# the hits within the window and no others; a hit over the limit changes nothing.
COUNT = """
    INSERT INTO rate_windows AS w (name, hits) VALUES (%(name)s, ARRAY[clock_timestamp()])
    ON CONFLICT (name) DO UPDATE SET hits = array(
        SELECT hit FROM unnest(w.hits) hit WHERE hit > clock_timestamp() - make_interval(secs => %(seconds)s)
    ) || clock_timestamp()
    WHERE (
        SELECT count(*) FROM unnest(w.hits) hit WHERE hit > clock_timestamp() - make_interval(secs => %(seconds)s)
    ) < %(limit)s
    RETURNING 1
"""
WAIT = """
    SELECT extract(epoch FROM min(hit) + make_interval(secs => %(seconds)s) - clock_timestamp())
    FROM rate_windows, unnest(hits) hit
    WHERE name = %(name)s AND hit > clock_timestamp() - make_interval(secs => %(seconds)s)
"""
CLEAR = "DELETE FROM rate_windows WHERE hits[cardinality(hits)] < now() - interval '1 day'"


def count_hit(name: str, *, limit: int, seconds: int) -> int | None:
    """Count one hit under ``name``; None where it is within the limit, else the whole seconds to wait for the next.

    Two statements at the most; a transaction that is rolled back takes its hit back.
    """
    values: dict[str, str | int] = {"name": name, "limit": limit, "seconds": seconds}
    with connection.cursor() as cursor:
        cursor.execute(COUNT, values)
        if cursor.fetchone():
            return None
        cursor.execute(WAIT, values)
        wait_s = cursor.fetchone()[0]
    return int(max(math.ceil(float(wait_s or 0)), 1))


def delete_expired_windows() -> int:
    """Delete the windows without a hit in the last day, the longest that a rate can name; how many."""
    with connection.cursor() as cursor:
        cursor.execute(CLEAR)
        return int(cursor.rowcount)
