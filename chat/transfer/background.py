"""Runs imports in the background of a process: one after the other, in a thread of its own.

A thread, not a step of retrieval/steps.py: an import takes a minute or more. All that it adds is
one transaction, which also makes its row ``done``; a process that dies leaves nothing behind.
Meanwhile the process writes into the row once a second how far it is. A row whose heartbeat is
older than ABANDONED_S has lost its process: chat/import_service.py makes it ``failed``.
"""

import asyncio
import logging
import threading
import time
from collections import deque
from concurrent.futures import Future
from contextlib import closing
from dataclasses import dataclass, field
from typing import BinaryIO

from django.contrib.auth.models import User
from django.db import Error, connection
from django.db.models import QuerySet
from django.db.models.functions import Now

from chat.models.imports import ImportStatus, MemoryImport
from chat.transfer import formats
from chat.transfer.imported_items import Record
from chat.transfer.refusals import ImportBusyError, ImportRefusedError
from retrieval import event_loop, steps
from retrieval.db_errors import describe_db_error, error_name

logger = logging.getLogger(__name__)
HEARTBEAT_S = 1.0
ABANDONED_S = 20  # long: the heartbeat of a busy process, or of a busy database, may be late
BUSY_POLL_S = 0.5  # while an import of another process runs in the same database
STOPPED = "The server stopped before the end; nothing was imported. Import the file again."
UNEXPECTED = "Something went wrong on the server, and nothing was imported; its log says what."


@dataclass
class Job:
    """An import whose row exists. ``file`` is closed at its end."""

    record: Record
    user: User
    file: BinaryIO
    progress: formats.Progress = field(default_factory=formats.Progress)
    is_cancelled: bool = False
    end: Future[None] = field(default_factory=Future)

    def run(self) -> None:
        """Import; whatever fails becomes the row's ``detail``."""
        try:
            self._import_when_free()
        except ImportRefusedError as error:
            self.fail(f"Nothing was imported: {error}.")
        except Error as error:
            reason = describe_db_error(error)
            logger.error("Import %s failed: %s", self.record.import_id, error_name(error))
            self.fail(f"Nothing was imported: the database failed ({reason}).")
        except Exception:
            logger.exception("Import %s failed", self.record.import_id)
            self.fail(UNEXPECTED)

    def _import_when_free(self) -> None:
        while not self.is_cancelled:
            try:
                formats.import_file(self.file, self.record, self.user, progress=self.progress)
            except ImportBusyError:
                connection.close()
                time.sleep(BUSY_POLL_S)
            else:
                return

    def fail(self, detail: str) -> None:
        """Never raises: if the database is away, the row becomes too old."""
        try:
            self._row().update(
                status=ImportStatus.FAILED, detail=detail, conversations=0, messages=0
            )
        except Error as error:
            logger.error("Import %s: %s", self.record.import_id, error_name(error))

    def write_progress(self) -> None:
        """One statement."""
        numbers = {
            "conversations": self.progress.conversations,
            "messages": self.progress.messages,
        }
        self._row().update(alive_at=Now(), **numbers)

    def _row(self) -> QuerySet[MemoryImport]:
        running = MemoryImport.objects.filter(status=ImportStatus.RUNNING)
        return running.filter(pk=self.record.import_id)


class _Worker:
    """The thread, and its jobs in order; the first one is running."""

    def __init__(self) -> None:
        self.lock = threading.Lock()  # protects the following
        self.jobs: deque[Job] = deque()

    def add(self, job: Job) -> None:
        with self.lock:
            self.jobs.append(job)
            if len(self.jobs) == 1:
                threading.Thread(target=self.run, name="imports", daemon=True).start()
        event_loop.start(_beat(job))

    def run(self) -> None:
        """Until there are no more jobs."""
        job: Job | None = self.jobs[0]
        while job:
            with closing(job.file):
                job.run()
            connection.close()
            with self.lock:
                self.jobs.popleft()
                job.end.set_result(None)
                job = self.jobs[0] if self.jobs else None


_worker = _Worker()


def start(job: Job) -> None:
    """Run the job after those of this process that are there already. Returns at once."""
    _worker.add(job)


async def drain(timeout_s: float) -> None:
    """At the end of a process: give its imports this time, then make them ``failed``."""
    if _worker.jobs:
        ends = [asyncio.wrap_future(job.end) for job in _worker.jobs]
        await asyncio.wait(ends, timeout=timeout_s)
        await steps.run(_fail_all)


def _fail_all() -> None:
    """A transaction under way cannot make its row ``done`` after this, so it is rolled back."""
    for job in list(_worker.jobs):
        job.is_cancelled = True
        job.fail(STOPPED)


async def _beat(job: Job) -> None:
    while not job.end.done():
        try:
            await steps.run(job.write_progress)
        except Error as error:
            logger.warning("Progress of an import not written: %s", error_name(error))
        await asyncio.sleep(HEARTBEAT_S)
