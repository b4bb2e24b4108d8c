"""A real Redis, from Debian's package redis-server, for tests and benchmarks of EMBED_QUEUE."""

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time

from tests.support import PATIENCE_S, free_port

PROGRAM = "redis-server"


def is_missing() -> bool:
    """Whether tests with a Redis are left out: never in CI, where they fail without it."""
    return shutil.which(PROGRAM) is None and not os.environ.get("CI")


class Redis:
    """A Redis on a free port that writes no files. A context manager, which ends it."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"redis://127.0.0.1:{self.port}/0"

    def __enter__(self) -> "Redis":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(self) -> None:
        """Return when it answers."""
        program = shutil.which(PROGRAM)
        assert program, f"apt-get install {PROGRAM}"
        command = [program, "--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self._process = subprocess.Popen(
            [*command, "--dir", tempfile.gettempdir()], stdout=subprocess.DEVNULL
        )
        until = time.monotonic() + PATIENCE_S
        while not self._listens():
            assert time.monotonic() < until
            time.sleep(0.01)

    def stop(self) -> None:
        """End it at once; what it holds is lost."""
        self._process.kill()
        self._process.wait(PATIENCE_S)

    def freeze(self) -> None:
        """Let it answer no more; it keeps its connections."""
        self._process.send_signal(signal.SIGSTOP)

    def _listens(self) -> bool:
        with socket.socket() as probe:
            return probe.connect_ex(("127.0.0.1", self.port)) == 0
