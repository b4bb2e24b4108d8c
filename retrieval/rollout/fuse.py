"""The fuse: recall that fails or is slow for a minute turns memory dark, for all processes."""

import logging
from datetime import timedelta

from retrieval.rollout import recall_times, state
from retrieval.rollout.recall_times import Figures
from retrieval.rollout.state import State

logger = logging.getLogger(__name__)
WINDOW = timedelta(minutes=1)
MIN_RECALLS = 20  # of fewer, p95 says little


def flush_and_check() -> None:
    """Add what this process recalled to the figures, and blow the fuse if they say so.

    No query if nothing was recalled; else one, and with a fuse two more. Every process does so
    after its own recalls, so the last one sees those of all.
    """
    if recall_times.flush():
        check()


def check() -> None:
    """One warning over all processes: only one can change the state."""
    current = state.read()
    if not current.may_blow:
        return
    reason = reason_to_blow(current, recall_times.figures(WINDOW, not_before=current.set_at))
    if reason and state.blow(current, reason):
        logger.warning("Recall fuse: %s; rag_rollout is now dark", reason)


def reason_to_blow(current: State, minute: Figures) -> str | None:
    """What a minute's figures exceed of the fuse; None for nothing."""
    errors, p95_ms = current.fuse_errors, current.fuse_ms
    if errors is not None and minute.errors > errors:
        return f"{minute.errors} recalls failed in one minute, more than {errors}"
    if p95_ms is None or minute.count < MIN_RECALLS or not minute.p95_ms:
        return None
    if minute.p95_ms > p95_ms:
        return f"95 of 100 recalls of a minute took {minute.p95_ms:.0f} ms, more than {p95_ms} ms"
    return None
