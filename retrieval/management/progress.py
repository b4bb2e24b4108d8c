"""How far long work is: a bar on a terminal, a line every few seconds elsewhere."""

import shutil
import time
from collections.abc import Callable
from typing import Any, TextIO

LINE_EVERY_S = 5.0


class Progress:
    """Shows how far work is: lines by ``write_line``, or a bar on ``terminal`` if there is one.

    A context manager: leaving it ends the bar. ``shown`` is true after the first bar or line.
    """

    def __init__(self, write_line: Callable[[str], object], *, terminal: TextIO | None) -> None:
        self.shown = False
        self._write_line = write_line
        self._terminal = terminal
        self._bar: Any = None
        self._last_line_at_s = time.monotonic()

    def __enter__(self) -> "Progress":
        return self

    def __exit__(self, *_: object) -> None:
        self._close_bar()

    def write(self, line: str) -> None:
        """Write a line, above the bar if there is one."""
        if self._bar is None:
            self._write_line(line)
        else:
            self._bar.write(line, file=self._terminal)

    def update(
        self,
        label: str,
        done: int,
        total: int | None,
        *,
        unit: str,
        line: str,
        note: str = "",
        at_once: bool = False,
    ) -> None:
        """Show that ``done`` of ``total`` units are done; ``total`` is None if it is not known.

        A bar stands between label and note; a new label begins a new bar. Without a terminal
        ``line`` is written, LINE_EVERY_S after the line before, or ``at_once``.
        """
        if self._terminal is not None:
            self._move_bar(label, done, total, unit=unit, note=note)
        elif at_once or time.monotonic() - self._last_line_at_s >= LINE_EVERY_S:
            self._last_line_at_s = time.monotonic()
            self._write_line(line)
        else:
            return
        self.shown = True

    def _move_bar(self, label: str, done: int, total: int | None, *, unit: str, note: str) -> None:
        if self._bar is None or self._bar.desc != label:
            self._close_bar()
            self._bar = self._open_bar(label, total, unit)
        self._bar.total = total
        self._bar.set_postfix_str(note, refresh=False)
        self._bar.update(done - self._bar.n)
        self._bar.refresh()

    def _open_bar(self, label: str, total: int | None, unit: str) -> Any:
        from tqdm import tqdm  # takes 20 ms to import: only where a bar is shown

        # A terminal may report a size of 0 by 0, on which tqdm shows nothing: then 80 by 24.
        columns, lines = shutil.get_terminal_size()
        return tqdm(
            total=total,
            desc=label,
            unit=f" {unit}",
            file=self._terminal,
            ncols=columns,
            nrows=lines,
        )

    def _close_bar(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None
