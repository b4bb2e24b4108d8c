"""Followers: clients that read an answer from another process than the one that generates it.

Such a process marks the answer once a second. As long as the mark is fresh, the process that
generates the answer writes its text more often: heartbeat.py. A mark is a hit in rate_windows. That
table is of the first migration, so the mark works on every schema, and behind any pooler.
"""

from chat.rate_limit import count_hit

MARK_EVERY_S = 1
MARK_LIFETIME_S = 3.0  # the text is written more often for so long after a follower has left


def mark_followed(running_id: int) -> None:
    """Mark the answer as followed, at most once a second for all of its followers.

    Two statements at most. Locks: the mark.
    """
    count_hit(f"followers {running_id}", limit=1, seconds=MARK_EVERY_S)
