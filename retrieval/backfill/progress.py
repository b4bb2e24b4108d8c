"""How far a backfill is: a bar on a terminal, a line a batch elsewhere."""

import shutil
from collections.abc import Callable
from types import TracebackType
from typing import Any, TextIO

from tqdm import tqdm

from retrieval.backfill.embed_table import Report

FILLED_EVERY = 10_000  # messages made known to recall by words, between two lines


class Told:
    """Tells of steps as they come, by ``say_line`` or as a bar on ``terminal``; a context, which ends the bar."""

    def __init__(self, say_line: Callable[[str], object], terminal: TextIO | None) -> None:
        self._say_line = say_line
        self._terminal = terminal
        self._bar: Any = None
        self._filled: dict[str, int] = {}

    def __enter__(self) -> "Told":
        return self

    def __exit__(self, *_: tuple[type[BaseException], BaseException, TracebackType]) -> None:
        for table, filled in self._filled.items():
            if filled % FILLED_EVERY:
                self._say_filled(table)
        self._close()

    def say(self, line: str) -> None:
        """A line, above the bar where there is one."""
        if self._bar is None:
            self._say_line(line)
        else:
            self._bar.write(line, file=self._terminal)

    def filled(self, table: str, rows: int) -> None:
        """So many more messages of the table are found by words."""
        before = self._filled.get(table, 0)
        self._filled[table] = before + rows
        if self._filled[table] // FILLED_EVERY > before // FILLED_EVERY:
            self._say_filled(table)

    def batch(self, report: Report, cost_usd: float) -> None:
        """A batch is committed."""
        if self._terminal is None:
            self._say_line(line(report))
        else:
            self._move(report, cost_usd)

    def _say_filled(self, table: str) -> None:
        self.say(f"{table}: {self._filled[table]:,} messages made known to recall by words")

    def _move(self, report: Report, cost_usd: float) -> None:
        if self._bar is None or self._bar.desc != report.table:
            self._close()
            # 80 by 24 where a terminal says 0 by 0, on which tqdm shows nothing.
            columns, lines = shutil.get_terminal_size()
            self._bar = tqdm(
                total=report.total,
                desc=report.table,
                unit=" messages",
                file=self._terminal,
                ncols=columns,
                nrows=lines,
            )
        self._bar.total = report.total
        self._bar.set_postfix_str(f"${cost_usd:.4f}", refresh=False)
        self._bar.update(report.done - self._bar.n)

    def _close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


def line(report: Report) -> str:
    """``chat_messages: batch 3, 100 embedded, 0 failed, 300/12000 (2.5%)``; contract section 5."""
    percent = 100 * report.done / report.total if report.total else 100
    return (
        f"{report.table}: batch {report.batch}, {report.embedded} embedded, {report.failed} failed, "
        f"{report.done}/{report.total} ({percent:.1f}%)"
    )
