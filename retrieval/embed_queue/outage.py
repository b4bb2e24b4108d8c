"""One line when something fails, one when it works again: an outage must not fill the log."""

import logging
import threading

from retrieval.runtime import on_reset


class Outage:
    """Whether something is away, for this process. Thread-safe."""

    def __init__(self, logger: logging.Logger, *, level: int = logging.WARNING) -> None:
        self._logger = logger
        self._level = level
        self._lock = threading.Lock()
        self._is_on = False
        on_reset(self._forget)

    def begin(self, line: str, *arguments: object) -> None:
        """Log the line, unless the outage has begun before."""
        with self._lock:
            is_first, self._is_on = not self._is_on, True
        if is_first:
            self._logger.log(self._level, line, *arguments)

    def end(self, line: str, *arguments: object) -> None:
        """Log the line if there was an outage."""
        if self._is_on:
            with self._lock:
                was_on, self._is_on = self._is_on, False
            if was_on:
                self._logger.info(line, *arguments)

    def _forget(self) -> None:
        self._is_on = False
