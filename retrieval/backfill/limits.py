"""What a run may still do: so many rows, so many dollars, and only until it is asked to stop."""

import time
from dataclasses import dataclass, field

from retrieval.embeddings.cost import Spending

OFF, UNREAD = "EMBEDDINGS=none", "output"
LOOK_S = 0.1  # how often a wait looks whether it is to end


class Stopped(Exception):
    """The run was asked to stop while it waited for the service."""


@dataclass
class Limits:
    """``rows`` are left over all tables, None for any number; ``reached`` is what ended the run.

    That is limit or max-cost, OFF, or UNREAD: nobody reads any more what it says.

    ``stop`` may be set at any time. It is no threading.Event: a signal's handler that sets one can meet the lock
    that the wait it interrupts has just taken.
    """

    rows: int | None = None
    spending: Spending = field(default_factory=Spending)
    stop: bool = False
    reached: str | None = None

    def room(self, most: int) -> int:
        """How many rows the next batch may have, at most ``most``; 0: no batch is to be begun."""
        if self.rows == 0:
            self.reached = "limit"
        if self.stop or self.reached:
            return 0
        return most if self.rows is None else min(most, self.rows)

    def take(self, rows: int) -> None:
        """So many rows are being worked on."""
        if self.rows is not None:
            self.rows -= rows

    def buy(self, tokens: int) -> bool:
        """Whether so many more tokens may be paid for; if so, they count as spent."""
        if not self.spending.allows(tokens):
            self.reached = "max-cost"
            return False
        self.spending.tokens += tokens
        return True

    def rest(self, seconds: float) -> None:
        """Do nothing for so long, or until ``stop``."""
        until = time.monotonic() + seconds
        while not self.stop and (left := until - time.monotonic()) > 0:
            time.sleep(min(left, LOOK_S))

    def wait(self, seconds: float) -> None:
        """The same, where the run cannot go on without. Raises Stopped."""
        self.rest(seconds)
        if self.stop:
            raise Stopped
