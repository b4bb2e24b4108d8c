"""SIGINT (Ctrl-C) and SIGTERM: let a command stop cleanly, then exit with the signal's code."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from django.core.management.base import CommandError

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}  # docs/promises.md, Commands


@contextmanager
def cancel_on_signal(cancel: Callable[[], object], *, message: str) -> Iterator[list[int]]:
    """Call ``cancel`` on each signal; at the end raise CommandError, exit code 130 or 143.

    ``cancel`` asks the work to stop, or raises KeyboardInterrupt in it
    (``raise_keyboard_interrupt``). Yields the list of signals that came. Only in the main thread:
    Python handles signals nowhere else.
    """
    signals: list[int] = []

    def handle(signum: int, _frame: FrameType | None) -> None:
        signals.append(signum)
        cancel()

    previous = {signum: signal.signal(signum, handle) for signum in EXIT_CODES}
    try:
        yield signals
    except KeyboardInterrupt:
        if not signals:
            raise
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if signals:
        raise CommandError(message, returncode=EXIT_CODES[signals[0]]) from None


def raise_keyboard_interrupt() -> None:
    """End the work at once; psycopg cancels the statement that the server is running."""
    raise KeyboardInterrupt
