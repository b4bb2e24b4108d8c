"""After failures in a row, leave a service alone for a while: it must not slow every turn of the chat."""

import threading
from collections.abc import Callable

from retrieval.embeddings.vectors import CircuitOpen

MOST_FAILURES = 3  # contract of RAG_TIMEOUT
PAUSE_S = 15.0  # contract of RAG_TIMEOUT


class CircuitBreaker:
    """Counts failures in a row. From the third, no call for 15 s; then one is tried. Safe from any thread.

    ``clock`` gives seconds that only grow.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._until = 0.0
        self._trying = False

    @property
    def is_on(self) -> bool:
        """Whether a call would be refused now."""
        with self._lock:
            return self._is_on()

    def enter(self) -> None:
        """Ask for leave to make a call; one of the three ways to end it must follow. Raises CircuitOpen."""
        with self._lock:
            if self._is_on():
                raise CircuitOpen(
                    "no call is made for now, the last ones failed", retry_after_s=self._rest_s()
                )
            self._trying = self._failures >= MOST_FAILURES

    def succeeded(self) -> None:
        """The call gave vectors: all is well again."""
        with self._lock:
            self._failures, self._trying = 0, False

    def failed(self) -> None:
        """The call failed, or somebody stopped waiting for it."""
        with self._lock:
            self._failures += 1
            self._trying = False
            # Calls that were under way when the pause began do not make it longer.
            if self._failures >= MOST_FAILURES and not self._rest_s():
                self._until = self._clock() + PAUSE_S

    def told_nothing(self) -> None:
        """The call ended in a way that says nothing about the service."""
        with self._lock:
            self._trying = False

    def _is_on(self) -> bool:
        return self._failures >= MOST_FAILURES and (self._trying or self._rest_s() > 0)

    def _rest_s(self) -> float:
        return max(self._until - self._clock(), 0.0)
