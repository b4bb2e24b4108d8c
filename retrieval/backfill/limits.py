"""What a run may still do: so many rows, so many dollars, and only until it is cancelled."""

import time
from dataclasses import dataclass, field

from retrieval.embeddings.cost import Spending

# Reasons why a run ended early, besides "limit" and "max-cost".
EMBEDDINGS_OFF = "EMBEDDINGS=none"
OUTPUT_CLOSED = "output"
POLL_S = 0.1  # how often a pause checks whether the run is cancelled


class Cancelled(Exception):
    """The run was cancelled while it waited for the embedding service."""


@dataclass
class Limits:
    """``rows`` may still be embedded, over all tables; None for any number.

    ``stopped_by`` is what ended the run: "limit", "max-cost", EMBEDDINGS_OFF or OUTPUT_CLOSED.
    ``cancel`` may be called at any time. ``cancelled`` is no threading.Event: a signal handler
    that sets one can deadlock on the lock that the interrupted wait has just taken.
    """

    rows: int | None = None
    spending: Spending = field(default_factory=Spending)
    cancelled: bool = False
    stopped_by: str | None = None

    def cancel(self) -> None:
        self.cancelled = True

    def rows_for_batch(self, batch_size: int) -> int:
        """How many rows the next batch may have, at most ``batch_size``; 0: start no batch."""
        if self.rows == 0:
            self.stopped_by = "limit"
        if self.cancelled or self.stopped_by:
            return 0
        return batch_size if self.rows is None else min(batch_size, self.rows)

    def count_rows(self, rows: int) -> None:
        """Subtract the rows of a batch that was started."""
        if self.rows is not None:
            self.rows -= rows

    def spend(self, tokens: int) -> bool:
        """Count the tokens as paid for; False, and nothing counted, if that exceeds the budget."""
        if not self.spending.allows(tokens):
            self.stopped_by = "max-cost"
            return False
        self.spending.tokens += tokens
        return True

    def pause(self, seconds: float) -> None:
        """Sleep, at most until the run is cancelled."""
        until_s = time.monotonic() + seconds
        while not self.cancelled and (left_s := until_s - time.monotonic()) > 0:
            time.sleep(min(left_s, POLL_S))

    def wait(self, seconds: float) -> None:
        """Sleep. Raises Cancelled."""
        self.pause(seconds)
        if self.cancelled:
            raise Cancelled
