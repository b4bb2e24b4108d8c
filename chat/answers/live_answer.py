"""An answer while this process generates it. Any thread may read its text, or follow it.

How it is stopped: stop.py.
"""

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress

from chat.answers.turns import Ending, Turn
from chat.errors import DatabaseUnavailable
from chat.memory.recalled import Memory
from chat.models import Message

# Proxies close a connection that is silent for too long, many after 60 s.
SSE_KEEPALIVE_S = 15.0
Listener = Callable[[str | None], None]


class LiveAnswer:
    """One answer that this process generates; the event loop changes it, everyone else listens."""

    def __init__(self, turn: Turn, *, running_id: int) -> None:
        self.turn = turn
        self.running_id = running_id  # of its row in running_answers
        # False: no model could be asked. True: the wait is over, whatever the ending.
        self.prepared: Future[bool] = Future()
        # The saved answer; None if it was deleted meanwhile. Raises DatabaseUnavailable.
        self.finished: Future[Message | None] = Future()
        self.memories: list[Memory] = []  # in the prompt, once prepared
        self.truncated = False  # the prompt holds the user's message cut
        self.ending: Ending | None = None  # set before the task is cancelled, or when it ends
        self.task: asyncio.Task[None] | None = None
        self._parts: list[str] = []
        self._listeners: list[Listener] = []
        self._lock = threading.Lock()

    @property
    def text(self) -> str:
        """The text so far."""
        return "".join(self._parts)

    def add(self, text: str) -> None:
        """Append a piece of text and pass it to the listeners. An empty one is a keep-alive."""
        with self._lock:
            self._parts.append(text)
            for listener in self._listeners:
                listener(text)

    def listen(self, listener: Listener) -> None:
        """Call ``listener`` with the text so far, then with each piece, then with None.

        The first call is made by this thread, later ones by the event loop's thread.
        """
        with self._lock:
            if self._parts:
                listener(self.text)
            if self.finished.done():
                listener(None)
            else:
                self._listeners.append(listener)

    def unlisten(self, listener: Listener) -> None:
        with self._lock, suppress(ValueError):
            self._listeners.remove(listener)

    def finish(self, saved: Message | DatabaseUnavailable | None) -> None:
        """Resolve ``finished`` and release the listeners."""
        with self._lock:
            if isinstance(saved, DatabaseUnavailable):
                self.finished.set_exception(saved)
            else:
                self.finished.set_result(saved)
            for listener in self._listeners:
                listener(None)

    def cancel(self, ending: Ending) -> None:
        """Stop generating and save the answer with this ending. Only from the loop's thread."""
        if self.task and not self.ending:
            self.ending = ending
            self.task.cancel()
