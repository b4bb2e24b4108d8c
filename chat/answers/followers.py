"""Followers: clients that read an answer from another process than the one that generates it.

The process that serves a follower marks the answer once a second. While the mark is fresh, the
process that generates the answer writes its text more often: heartbeat.py. A mark is a hit in
rate_windows. The first migration creates that table, so marks work on every schema, and they work
behind any pooler.
"""

from chat.rate_limit import count_hit

MARK_EVERY_S = 1
MARK_LIFETIME_S = 3.0  # a mark is fresh for so long, also after the follower has left


def mark_followed(running_id: int) -> None:
    """Mark the answer as followed, at most once a second for all of its followers.

    Two statements at most. Locks: the mark.
    """
    count_hit(f"followers {running_id}", limit=1, seconds=MARK_EVERY_S)
