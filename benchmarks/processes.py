"""Processor time and memory of other processes on this machine. Needs Linux."""

import os
import time
from collections.abc import Iterable
from pathlib import Path

PAGE_MB = os.sysconf("SC_PAGE_SIZE") / 1e6
# The processes of a database's sessions, without the session that asks.
BACKENDS = """
    SELECT pid FROM pg_stat_activity WHERE datname = current_database()
    AND pid <> pg_backend_pid() AND backend_type = 'client backend'
"""


def cpu_ms(pids: Iterable[int]) -> float:
    """Processor time of running processes. OSError: one has ended."""
    return sum(cpu_by_pid(pids).values())


def cpu_by_pid(pids: Iterable[int]) -> dict[int, float]:
    """Milliseconds of each process: all its threads, ended ones too, in steps of a nanosecond."""
    return {pid: time.clock_gettime_ns(process_clock(pid)) / 1e6 for pid in pids}


def process_clock(pid: int) -> int:
    """The number of another process's clock, as clock_getcpuclockid(3) computes it in Linux."""
    return (~pid << 3) | 2


def children_of(pid: int) -> list[int]:
    """The process numbers of a process's children."""
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def resident_mb(pid: int) -> float:
    """Resident memory (RSS)."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * PAGE_MB


def private_mb(pid: int) -> float:
    """The process's own memory: resident without shared."""
    _, resident, shared, *_ = Path(f"/proc/{pid}/statm").read_text().split()
    return (int(resident) - int(shared)) * PAGE_MB
