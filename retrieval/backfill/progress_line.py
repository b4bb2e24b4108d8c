"""The line that a backfill prints for each batch."""

from dataclasses import dataclass, replace


@dataclass(frozen=True)
class Report:
    """Progress after a batch, in rows of ``total`` that were pending at the run's start."""

    table: str
    total: int
    batch: int = 0
    embedded: int = 0
    failed: int = 0
    done: int = 0

    def next(self, rows: int, *, embedded: int, failed: int) -> "Report":
        """The report of the next batch, of ``rows`` rows."""
        # More rows than were counted: an old message was edited, or switched on, meanwhile.
        done = min(self.done + rows, self.total)
        return replace(self, batch=self.batch + 1, embedded=embedded, failed=failed, done=done)

    def __str__(self) -> str:
        """``chat_messages: batch 3, 100 embedded, 0 failed, 300/12000 (2.5%)``.

        docs/promises.md, Commands.
        """
        percent = 100 * self.done / self.total if self.total else 100
        return (
            f"{self.table}: batch {self.batch}, {self.embedded} embedded, {self.failed} failed, "
            f"{self.done}/{self.total} ({percent:.1f}%)"
        )
