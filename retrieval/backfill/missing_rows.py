"""Messages without a row in message_memories get it, in steps between a worker's other work.

They are older than memory's triggers, or a trigger failed. Only a look at all messages finds them,
so one process looks, once a day.
"""

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import chain

from retrieval import queries
from retrieval.backfill import fill_words
from retrieval.backfill.claims import Claims
from retrieval.backfill.limits import Limits
from retrieval.message_tables import MessageTable
from retrieval.schema.locks import BACKFILL_LOCK

EVERY_S = 86_400.0  # 200 s for each million messages, if the worker has nothing else to do
FILL_STEPS = 20  # in a row, between looks for other work: 3 s where all rows are missing
TRY_AGAIN_S = 20.0  # while another process looks, and after a failure
NO_MESSAGE = 0  # an id that no message has: the process that claims it looks at the table
# Whether no backfill_embeddings runs, which fills the same rows. One statement, because behind a
# pooler the next one may have another session. Locks nothing when it has ended.
IS_LEFT_TO_US = """
    SELECT CASE WHEN pg_catalog.pg_try_advisory_lock_shared(%(lock)s)
        THEN pg_catalog.pg_advisory_unlock_shared(%(lock)s) ELSE false END
"""


@dataclass
class MissingRows:
    """Looks at the tables again and again, unless another process does."""

    tables: Sequence[MessageTable]
    claims: Claims
    _claimed: set[int] = field(default_factory=set, init=False)  # refs of NO_MESSAGE
    _steps: Iterator[int] | None = field(default=None, init=False)
    _next_at: float = field(default=-math.inf, init=False)

    def fill_next(self) -> int | None:
        """Look at the next messages; how many rows were missing, None if no look is due now.

        Three statements at most, none if no look is due. After a failure the same messages are
        looked at again in TRY_AGAIN_S. Raises NoMemory.
        """
        if time.monotonic() < self._next_at:
            return None
        self._next_at = time.monotonic() + TRY_AGAIN_S
        self._steps = self._steps or self._begin()
        if self._steps is None or not queries.value(IS_LEFT_TO_US, {"lock": BACKFILL_LOCK}):
            return None
        rows = next(self._steps, None)
        if rows is None:
            self._steps = None
        self._next_at = time.monotonic() + (EVERY_S if rows is None else 0.0)
        return rows

    def fill_some(self, steps: int, limits: Limits) -> None:
        """Look so many times in a row, fewer if no look is due or the run is cancelled."""
        for _ in range(steps):
            if self.fill_next() is None or limits.cancelled:
                return

    def begin_again(self) -> None:
        """Look at once, from the first message on: memory is there again, without its rows."""
        self._steps, self._next_at = None, -math.inf

    def _begin(self) -> Iterator[int] | None:
        """The steps of a look at the tables that this process has claimed, None without any."""
        refs = {table: table.pack_ref(NO_MESSAGE) for table in self.tables}
        self._claimed |= self.claims.take(set(refs.values()) - self._claimed)
        mine = [table for table, ref in refs.items() if ref in self._claimed]
        return chain.from_iterable(map(fill_words.Fill, mine)) if mine else None
