"""Makes faults happen, and remembers when a call may have been lost by one."""

import os
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.storm.findings import Findings
from tests.storm.schedule import Fault
from tests.storm.services import Site

END_SESSIONS = """
    SELECT pg_terminate_backend(pid) FROM pg_stat_activity
    WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
"""
STEP_BYTES = 16_000_000
MOMENTS = {"kill_web", "kill_worker", "move_clock"}  # what begins after their begin is not lost


@dataclass
class Storm:
    """``disruptions``: from when to when (time.monotonic()) a paid answer may have been lost."""

    site: Site
    findings: Findings
    ended: threading.Event = field(default_factory=threading.Event)
    disruptions: list[tuple[float, float]] = field(default_factory=list)

    def rage(self, faults: Iterator[Fault]) -> None:
        """One fault after the other until ``ended``; all is well after each."""
        for fault in faults:
            if self.ended.wait(fault.after_s):
                return
            self.findings.count(f"fault {fault.name}")
            began = time.monotonic()
            service, _, mood = fault.name.partition(" ")
            if mood:
                self._mood(service, mood, fault)
            else:
                getattr(self, fault.name)(fault)
                is_moment = fault.name in MOMENTS
                self.disruptions.append((began, began if is_moment else time.monotonic()))

    def _mood(self, service: str, mood: str, fault: Fault) -> None:
        moody = self.site.model if service == "model" else self.site.embedder
        moody.set_mood(mood)
        self.ended.wait(fault.lasts_s)
        moody.set_mood("")

    def kill_web(self, fault: Fault) -> None:
        web = self.site.webs[fault.number]
        web.kill()
        self.ended.wait(fault.lasts_s)
        web.start()

    def stop_web(self, fault: Fault) -> None:
        web = self.site.webs[fault.number]
        web.signal(signal.SIGSTOP)
        self.ended.wait(fault.lasts_s)
        web.signal(signal.SIGCONT)

    def kill_worker(self, fault: Fault) -> None:
        self.site.kill_worker()
        self.ended.wait(fault.lasts_s)
        self.site.start_worker()

    def stop_worker(self, fault: Fault) -> None:
        self.site.worker.process.send_signal(signal.SIGSTOP)
        self.ended.wait(fault.lasts_s)
        self.site.worker.process.send_signal(signal.SIGCONT)

    def restart_database(self, fault: Fault) -> None:
        self.site.database.stop()
        self.ended.wait(fault.lasts_s)
        self.site.ensure_database()

    def kill_database(self, fault: Fault) -> None:
        self.site.database.kill()
        self.ended.wait(fault.lasts_s)
        self.site.ensure_database()

    def end_sessions(self, fault: Fault) -> None:
        self.site.database.run(END_SESSIONS)

    def move_clock(self, fault: Fault) -> None:
        self.site.clocks[fault.number].write_text(str(fault.jump_s))
        self.ended.wait(fault.lasts_s)
        self.site.clocks[fault.number].write_text("0")

    def fill_disk(self, fault: Fault) -> None:
        """Leave no byte on PostgreSQL's disk for a time."""
        if self.site.disk:
            ballast = self.site.disk / "ballast"
            fill(ballast)
            self.ended.wait(fault.lasts_s)
            ballast.unlink()
            self.site.ensure_database()


def fill(path: Path) -> None:
    """Write zeros until the disk has no room."""
    step = bytes(STEP_BYTES)
    with path.open("wb", buffering=0) as file:
        try:
            while True:
                written = os.write(file.fileno(), step)
                if written < len(step):
                    return
        except OSError:
            return
