"""``embed_worker`` in a process, for tests that kill it."""

import subprocess
import sys
import tempfile
from pathlib import Path

from tests.support import PATIENCE_S, ROOT, clean_environment, wait_for


class Worker:
    """``embed_worker`` in a process, with its output in a file."""

    def __init__(self, settings: dict[str, str]) -> None:
        self._log = Path(tempfile.mkstemp(prefix="verse-test-worker-")[1])
        with self._log.open("wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "manage.py", "embed_worker"],
                cwd=ROOT,
                env=clean_environment(**settings),
                stdout=log,
                stderr=log,
            )

    @property
    def log(self) -> str:
        """Its output so far."""
        return self._log.read_text()

    def wait_for_log(self, text: str) -> None:
        """Wait until it has printed the text."""
        wait_for(lambda: text in self.log or self.process.poll() is not None)
        assert text in self.log, self.log

    def kill(self) -> None:
        """SIGKILL."""
        self.process.kill()
        self.process.wait(PATIENCE_S)

    def end(self) -> None:
        """Kill it, and delete its output."""
        self.kill()
        self._log.unlink(missing_ok=True)
