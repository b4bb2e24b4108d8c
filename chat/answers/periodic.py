"""Housekeeping that every process does from time to time, on the event loop."""

import asyncio
import logging
from collections.abc import Callable

from django.db import Error

from chat.answers import idempotency
from chat.answers.heartbeat import TICK_S
from chat.auth import open_streams
from chat.retention import sweep
from chat.transfer import imported_items
from retrieval import forgetting, log_counts, steps, token_usage
from retrieval.db_errors import error_name
from retrieval.embeddings import usage
from retrieval.recall import min_similarity
from retrieval.replica import user_writes
from retrieval.rollout import fuse, recall_times

logger = logging.getLogger(__name__)
# What every process runs, and every how many seconds.
PERIODIC_TASKS: dict[Callable[[], object], float] = {
    open_streams.end_streams_without_rights: open_streams.CHECK_EVERY_S,
    usage.flush: 5.0,
    fuse.flush_and_check: 5.0,
    log_counts.flush: 10.0,
    min_similarity.measure: 600.0,
    idempotency.delete_expired_keys: 3600.0,
    forgetting.purge_deleted_users: 3600.0,
    imported_items.purge_deleted_users: 3600.0,
    user_writes.purge_deleted_users: 3600.0,
    log_counts.purge: 3600.0,
    recall_times.purge: 3600.0,
    token_usage.purge: 3600.0,
    sweep.sweep: 600.0,
}


async def flush_counts() -> None:
    """At the end of a process: store what was counted since the last time."""
    await asyncio.gather(*map(_run, (usage.flush, recall_times.flush, log_counts.flush)))


async def run_periodic_tasks() -> None:
    """Run each task when it is due, until cancelled.

    Apart from the heartbeat, and each apart from the others: a task that waits, for a lock perhaps,
    must not delay a stop, nor the fuse.
    """
    running: dict[Callable[[], object], asyncio.Task[None]] = {}
    last_runs = dict.fromkeys(PERIODIC_TASKS, 0.0)
    async with asyncio.TaskGroup() as group:
        while True:
            await asyncio.sleep(TICK_S)
            now = asyncio.get_running_loop().time()
            for task, last_run in last_runs.items():
                is_due = now - last_run >= PERIODIC_TASKS[task]
                if is_due and (task not in running or running[task].done()):
                    last_runs[task] = now
                    running[task] = group.create_task(_run(task))


async def _run(task: Callable[[], object]) -> None:
    name = f"{task.__module__}.{task.__name__}"
    try:
        await steps.run(task)
    except Error as error:
        logger.warning("Periodic task %s failed: %s", name, error_name(error))
    except Exception:
        logger.exception("Periodic task %s failed", name)
