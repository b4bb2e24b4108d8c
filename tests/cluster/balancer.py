"""HAProxy with the configuration that docs/howto/run-on-more-than-one-machine.md shows.

HAProxy, because it asks servers for their health by itself (nginx does so in its paid version
only), because a rule decides which requests it repeats, and because it reloads without refusing a
connection. ``apt-get install haproxy``; a package of Debian, 2.6 or later.
"""

import re
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import httpx2

from tests.pages import blocks_of
from tests.support import PATIENCE_S, ROOT, free_port, wait_for

PAGE = ROOT / "docs" / "howto" / "run-on-more-than-one-machine.md"
PROGRAM = shutil.which("haproxy") or "/usr/sbin/haproxy"


def configuration(port: int, servers: Sequence[int], admin: Path) -> str:
    """The page's block, with these ports on this machine."""
    (text,) = [block.text for block in blocks_of(PAGE) if block.kind == "haproxy"]
    text = text.replace("bind :80", f"bind 127.0.0.1:{port}")
    text = text.replace("/run/haproxy/admin.sock", str(admin))
    for number, server in enumerate(servers, 1):
        text = text.replace(f"web{number}.internal:8000", f"127.0.0.1:{server}")
    return text


class Balancer:
    """HAProxy in front of servers on these ports of this machine, with its files in ``folder``."""

    def __init__(self, folder: Path, servers: Sequence[int]) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self._settings, self._admin = folder / "haproxy.cfg", folder / "admin.sock"
        self._log = folder / "haproxy.log"
        self._settings.write_text(configuration(self.port, servers, self._admin))
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [PROGRAM, "-W", "-f", str(self._settings)], stdout=log, stderr=log
            )
        wait_for(self._answers)

    @property
    def log(self) -> str:
        return self._log.read_text()

    def reload(self) -> None:
        """Read the configuration again, by a new process; wait until it serves."""
        loaded = self._count_loaded()
        self._process.send_signal(signal.SIGUSR2)
        wait_for(lambda: self._count_loaded() > loaded)

    def wait_for_server(self, name: str, *, ready: bool) -> None:
        """Wait until it sends requests to the server, or does not any more."""
        wait_for(lambda: self._is_up(name) == ready)

    def stop(self) -> None:
        """End it with its requests."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(PATIENCE_S)

    def _is_up(self, name: str) -> bool:
        """By the column ``status`` of HAProxy's statistics; SIGUSR2 closes the socket a moment."""
        with suppress(OSError), socket.socket(socket.AF_UNIX) as admin:
            admin.connect(str(self._admin))
            admin.sendall(b"show stat\n")
            lines = admin.makefile().read().splitlines()
            columns = lines[0].lstrip("# ").split(",")
            for line in lines[1:]:
                row = dict(zip(columns, line.split(","), strict=False))
                if row.get("svname") == name:
                    return row["status"].startswith("UP")
        return False

    def _count_loaded(self) -> int:
        return len(re.findall(r"Loading success", self.log))

    def _answers(self) -> bool:
        assert self._process.poll() is None, self.log
        with suppress(httpx2.HTTPError):
            return httpx2.get(f"{self.url}/healthz", trust_env=False).status_code == 200
        return False
