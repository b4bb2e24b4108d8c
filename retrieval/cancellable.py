"""Ends a statement that another thread runs, when its time is over."""

import logging
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import psycopg
from django.db import OperationalError, connection

logger = logging.getLogger(__name__)
CANCEL_TIMEOUT_S = 2.0  # for the request to the server, which needs a connection of its own


class Cancellable:
    """The statements of one step; they cost nothing more unless they are cancelled."""

    def __init__(self) -> None:
        self._lock = threading.Lock()  # protects the following
        self._session: psycopg.Connection[Any] | None = None
        self.is_cancelled = False

    @contextmanager
    def running(self) -> Iterator[None]:
        """Around the statements. Afterwards a cancel cannot reach the connection's next user.

        Raises OperationalError if it was cancelled before.
        """
        connection.ensure_connection()
        with self._lock:
            if self.is_cancelled:
                raise OperationalError("cancelled before it began")
            self._session = connection.connection
        try:
            yield
        finally:
            with self._lock:
                self._session = None

    def cancel(self) -> None:
        """End the statement that runs, if one does: it raises OperationalError. A step."""
        with self._lock:
            self.is_cancelled = True
            if self._session is None:
                return
            try:
                self._session.cancel_safe(timeout=CANCEL_TIMEOUT_S)
            except psycopg.Error as error:
                logger.warning("A statement could not be cancelled: %s", type(error).__name__)
