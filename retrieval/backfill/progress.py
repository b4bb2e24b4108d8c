"""How far a backfill is: a bar on a terminal, a line a batch elsewhere."""

from collections.abc import Callable
from types import TracebackType
from typing import Any

from tqdm import tqdm

from retrieval.backfill.run import Report

FILLED_EVERY = 10_000  # messages made known to recall by words, between two lines


class Told:
    """Tells of steps as they come, by ``say``; a context, so that a bar is closed."""

    def __init__(self, say: Callable[[str], Any], *, as_bar: bool) -> None:
        self._say = say
        self._as_bar = as_bar
        self._bar: Any = None
        self._filled: dict[str, int] = {}

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        for table, filled in self._filled.items():
            if filled % FILLED_EVERY:
                self._say(f"{table}: {filled:,} messages made known to recall by words")
        if self._bar is not None:
            self._bar.close()

    def filled(self, table: str, rows: int) -> None:
        """So many more messages of the table are found by words."""
        before = self._filled.get(table, 0)
        self._filled[table] = before + rows
        if self._filled[table] // FILLED_EVERY > before // FILLED_EVERY:
            self._say(f"{table}: {self._filled[table]:,} messages made known to recall by words")

    def batch(self, report: Report, cost_usd: float) -> None:
        """A batch is committed."""
        if self._as_bar:
            self._move(report, cost_usd)
        else:
            self._say(line(report))

    def _move(self, report: Report, cost_usd: float) -> None:
        if self._bar is None or self._bar.desc != report.table:
            if self._bar is not None:
                self._bar.close()
            self._bar = tqdm(total=report.total, desc=report.table, unit=" messages")
        self._bar.total = report.total
        self._bar.set_postfix_str(f"${cost_usd:.4f}", refresh=False)
        self._bar.update(report.done - self._bar.n)


def line(report: Report) -> str:
    """``chat_messages: batch 3, 100 embedded, 0 failed, 300/12000 (2.5%)``; contract section 5."""
    percent = 100 * report.done / report.total if report.total else 100
    return (
        f"{report.table}: batch {report.batch}, {report.embedded} embedded, {report.failed} failed, "
        f"{report.done}/{report.total} ({percent:.1f}%)"
    )
