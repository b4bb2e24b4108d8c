"""SIGINT (Ctrl-C) and SIGTERM: let a command stop cleanly, then exit with the signal's code."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType

from django.core.management.base import CommandError

EXIT_CODES: dict[int, int] = {signal.SIGINT: 130, signal.SIGTERM: 143}  # docs/promises.md, Commands


@dataclass
class Cancellation:
    """The first signal that came, if any."""

    signal: int | None = None

    def __bool__(self) -> bool:
        return self.signal is not None


@contextmanager
def cancel_on_signal(cancel: Callable[[], object], *, message: str) -> Iterator[Cancellation]:
    """Call ``cancel`` on each signal; at the end raise CommandError, exit code 130 or 143.

    ``cancel`` either asks the work to stop, or raises KeyboardInterrupt in it
    (``raise_keyboard_interrupt``). Only in the main thread: Python handles signals nowhere else.
    """
    cancellation = Cancellation()

    def handle(signum: int, _frame: FrameType | None) -> None:
        cancellation.signal = cancellation.signal or signum
        cancel()

    previous = {signum: signal.signal(signum, handle) for signum in EXIT_CODES}
    try:
        yield cancellation
    except KeyboardInterrupt:
        if not cancellation:
            raise
    finally:
        for signum, handler in previous.items():
            signal.signal(signum, handler)
    if cancellation.signal is not None:
        raise CommandError(message, returncode=EXIT_CODES[cancellation.signal]) from None


def raise_keyboard_interrupt() -> None:
    """End the work at once; psycopg cancels the statement that the server is running."""
    raise KeyboardInterrupt
