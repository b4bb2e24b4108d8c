"""Stops calls to a failing service for a while, so that an outage does not slow every chat turn."""

import threading
from collections.abc import Callable

from retrieval.embeddings.errors import CircuitOpen, InputRefused

MAX_FAILURES = 3  # docs/promises.md, "Settings": circuit breaker
OPEN_S = 15.0  # docs/promises.md, "Settings": circuit breaker


class CircuitBreaker:
    """Opens for 15 s after three failures in a row; then lets a single call through as a probe.

    Thread-safe. ``clock`` returns monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether a call would be refused now."""
        with self._lock:
            return self._is_open()

    def before_call(self) -> None:
        """Allow a call or raise CircuitOpen. ``record`` must follow an allowed call."""
        with self._lock:
            if self._is_open():
                raise CircuitOpen(
                    "no call is made for now, the last ones failed",
                    retry_after_s=self._remaining_s(),
                )
            self._probing = self._failures >= MAX_FAILURES

    def record(self, error: BaseException | None) -> None:
        """The outcome of an allowed call; TimeoutError for a caller that stopped waiting."""
        with self._lock:
            self._probing = False
            if error is None:
                self._failures = 0
            elif not isinstance(error, InputRefused):  # which shows nothing about the service
                self._failures += 1
                # Calls that were already running when the circuit opened do not extend the 15 s.
                if self._failures >= MAX_FAILURES and not self._remaining_s():
                    self._open_until = self._clock() + OPEN_S

    def _is_open(self) -> bool:
        return self._failures >= MAX_FAILURES and (self._probing or self._remaining_s() > 0)

    def _remaining_s(self) -> float:
        return max(self._open_until - self._clock(), 0.0)
