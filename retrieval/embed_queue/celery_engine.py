"""Celery: jobs are messages of the broker that CELERY_BROKER_URL names.

Imported with EMBED_QUEUE=celery, and by Celery's own commands: ``celery -A verse inspect ping``.
"""

import logging
import os
from collections.abc import Callable
from functools import cache
from socket import gethostname
from typing import Any

from celery import Celery
from celery.worker import WorkController, state
from django.conf import settings

from retrieval import steps
from retrieval.embed_queue import bell

QUEUE = "verse-embed"
TIMEOUT_S = 0.25  # to connect, and to send; with a second try less than a second
VISIBLE_AGAIN_S = 60  # Redis gives the messages of a killed worker to another one after so long
TRANSPORT: dict[str, Any] = {"visibility_timeout": VISIBLE_AGAIN_S}
# The second try is for a connection that the broker has closed, since it was idle.
SECOND_TRY = {"max_retries": 1, "interval_start": 0, "interval_step": 0}
app = Celery("verse", broker=settings.CELERY_BROKER_URL or None, set_as_current=False)
app.conf.update(
    task_default_queue=QUEUE,
    task_ignore_result=True,
    broker_transport_options=TRANSPORT,
    # The thread that serves begins again by itself, and logs an outage once.
    broker_connection_retry=False,
    broker_connection_retry_on_startup=False,
    worker_hijack_root_logger=False,
)
# Of a lost broker it says "Shutting down": that ends a connection, and not the worker.
logging.getLogger("celery.worker.consumer.consumer").addFilter(
    lambda record: record.levelno < logging.CRITICAL
)


@app.task(name="verse.embed")  # type: ignore[untyped-decorator] # celery has no types
def embed(refs: list[int]) -> None:
    """Ring this worker's bell. Raises NoWorker in a process that is none."""
    bell.ring(refs)


def publish(refs: list[int]) -> None:
    """One message. The step's database connection is given back meanwhile."""
    _limit_times()
    with steps.waiting():
        embed.apply_async((refs,), retry=True, retry_policy=SECOND_TRY)


@cache
def _limit_times() -> None:
    """For a process that publishes. One that waits for jobs, or for replies, waits for longer."""
    app.conf.broker_connection_timeout = TIMEOUT_S
    app.conf.broker_pool_acquire_timeout = TIMEOUT_S
    app.conf.broker_pool_limit = steps.MAX_THREADS
    app.conf.broker_transport_options = TRANSPORT | {
        "max_retries": 0,
        "socket_connect_timeout": TIMEOUT_S,  # of Redis
        "socket_timeout": TIMEOUT_S,
        "read_timeout": TIMEOUT_S,  # of AMQP
        "write_timeout": TIMEOUT_S,
    }


def serve(ready: Callable[[], None]) -> None:
    """Run jobs in this thread. Raises RuntimeError if the broker is away, or ends the connection.

    Answers Celery's own commands too.
    """
    state.should_stop = None
    worker = WorkController(
        app=app,
        hostname=f"verse-{os.getpid()}@{gethostname()}",
        pool_cls="solo",
        concurrency=1,
        ready_callback=lambda _consumer: ready(),
    )
    worker.start()
    if state.should_stop is None:
        raise RuntimeError("the connection to the broker was lost")


def stop() -> None:
    """End ``serve``, after the job that runs."""
    state.should_stop = 0
