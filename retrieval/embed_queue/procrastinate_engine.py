"""Procrastinate: jobs are rows of PostgreSQL. Its app is installed with EMBED_QUEUE=procrastinate.

Its tables come from its own migrations; before them a job cannot be put into the queue.
"""

import asyncio
import logging
from collections.abc import Callable
from contextlib import suppress

from django.db import connection, transaction
from procrastinate import App, PsycopgConnector
from procrastinate.contrib.django import app, connector_params
from procrastinate.exceptions import ConnectorException

from retrieval.embed_queue import bell

QUEUE = "verse-embed"
CONCURRENCY = 10  # a job takes a moment; what it costs is to fetch and to delete it
STALLED_S = 30.0  # without a heartbeat: the worker was killed
CONNECT_TIMEOUT_S = 5.0
# A migration of the engine's may lock its tables. A lost job is only late, so the commit need not
# wait for the disk. Until the end of the transaction.
SHORT = """
    SELECT set_config('lock_timeout', '900ms', true), set_config('synchronous_commit', 'off', true)
"""


@app.task(name="verse.embed", queue=QUEUE)
async def embed(refs: list[int]) -> None:
    """Ring this worker's bell. Raises NoWorker in a process that is none."""
    bell.ring(refs)


def publish(refs: list[int]) -> None:
    """One transaction of two statements, on the caller's connection."""
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(SHORT)
        embed.defer(refs=refs)


class _Process:
    """The loop and the task of ``serve``, while it runs."""

    running: "tuple[asyncio.AbstractEventLoop, asyncio.Task[None] | None] | None" = None


def serve(ready: Callable[[], None]) -> None:
    """Run jobs on an event loop of this thread, with at most five connections of its own."""
    for handler in logging.getLogger().handlers:
        handler.addFilter(is_no_outage)
    asyncio.run(_serve(ready))


def is_no_outage(record: logging.LogRecord) -> bool:
    """False for what the engine, and asyncio for its tasks, log while the database is away.

    The worker says it in one line. For ``logging.Handler.addFilter``, which adds a filter once.
    """
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, ConnectorException)


def stop() -> None:
    """End ``serve``, after the jobs that run."""
    if _Process.running:
        loop, task = _Process.running
        if task:
            loop.call_soon_threadsafe(task.cancel)


async def _serve(ready: Callable[[], None]) -> None:
    _Process.running = asyncio.get_running_loop(), asyncio.current_task()
    connector = PsycopgConnector(
        kwargs=connector_params(), min_size=1, max_size=4, timeout=CONNECT_TIMEOUT_S
    )
    try:
        with app.replace_connector(connector) as worker_app:
            async with worker_app.open_async():
                if not await worker_app.check_connection_async():
                    raise ConnectorException("its tables are missing: run manage.py migrate")
                ready()
                await _run(worker_app)
    except asyncio.CancelledError:
        pass
    finally:
        _Process.running = None


async def _run(worker_app: App) -> None:
    """Run jobs until cancelled, or until the database ends the connections."""
    recovering = asyncio.create_task(_recover_stalled(worker_app))
    try:
        await worker_app.run_worker_async(
            queues=[QUEUE],
            name="verse",
            concurrency=CONCURRENCY,
            delete_jobs="successful",
            install_signal_handlers=False,
            stalled_worker_timeout=STALLED_S,
        )
    finally:
        recovering.cancel()


async def _recover_stalled(worker_app: App) -> None:
    """Let the jobs of killed workers run again. What fails here ends the worker's own tasks too."""
    while True:
        with suppress(ConnectorException):
            manager = worker_app.job_manager
            for job in await manager.get_stalled_jobs(
                queue=QUEUE, seconds_since_heartbeat=STALLED_S
            ):
                await manager.retry_job(job)
        await asyncio.sleep(STALLED_S)
