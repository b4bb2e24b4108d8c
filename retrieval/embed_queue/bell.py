"""What the jobs of a worker's process have named: refs of messages, to be embedded together."""

import threading
import time
from collections.abc import Callable, Iterable

MAX_RINGS = 100_000  # while the service is away; a sweep finds the messages of the others


class Bell:
    """Thread-safe. ``clock`` returns monotonic seconds."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._rung: dict[int, float] = {}  # when each ref came, the oldest first

    def ring(self, refs: Iterable[int]) -> None:
        """Remember the refs, from any thread."""
        now = self._clock()
        with self._lock:
            for ref in refs:
                if len(self._rung) < MAX_RINGS:
                    self._rung.setdefault(ref, now)

    def take(self, *, age_s: float) -> list[int]:
        """The refs that came ``age_s`` ago or earlier, which are forgotten."""
        until = self._clock() - age_s
        with self._lock:
            due = [ref for ref, at in self._rung.items() if at <= until]
            for ref in due:
                del self._rung[ref]
            return due


class NoWorker(RuntimeError):
    """A job runs in a process that embeds nothing: the engine's own command was started."""

    def __init__(self) -> None:
        super().__init__("this process embeds nothing: run manage.py embed_worker instead")


_process: list[Bell] = []  # empty, or the bell of this process


def install(bell: Bell) -> None:
    """Let jobs of this process ring this bell."""
    _process[:] = [bell]


def ring(refs: Iterable[int]) -> None:
    """What a job does. Raises NoWorker."""
    if not _process:
        raise NoWorker
    _process[0].ring(refs)
