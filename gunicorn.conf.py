"""Settings of `gunicorn verse.asgi:application`, which reads this file by itself.

A setting of Verse that cannot be used ends the start here, with one line.
"""

import os
import signal
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from retrieval.telemetry import metrics_folder
from verse import settings

bind = f"0.0.0.0:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "asgi"
asgi_lifespan = "on"
control_socket_disable = True
limit_request_line = 400_000  # a search for 32,000 characters of 4 bytes each, percent-encoded
# Running answers get SHUTDOWN_GRACE, then the connections that read them get 5 s.
graceful_timeout = int(settings.SHUTDOWN_GRACE_S) + 5
timeout = 60
# Without the referrer, and of the address only the path: a query may hold a search.
access_log_format = '%(h)s %(t)s "%(m)s %(U)s %(H)s" %(s)s %(b)s "%(a)s"'
keepalive = 75  # more than the usual 60 s of load balancers, so that they close connections first
logger_class = "verse.access_log.Logger"
logconfig_dict = settings.LOGGING | {
    "loggers": settings.LOGGING["loggers"]
    | {"gunicorn.error": {"handlers": [], "propagate": True, "level": "WARNING"}}
}


def on_starting(server: Any) -> None:
    """Workers are forked later, and count in this folder: docs/observability.md"""
    if settings.METRICS_TOKEN:
        metrics_folder.create(server.cfg.worker_tmp_dir)


def child_exit(_server: Any, worker: Any) -> None:
    """The answers of a worker that has ended, or was killed, do not run any more."""
    metrics_folder.forget_process(worker.pid)


def on_exit(_server: Any) -> None:
    metrics_folder.remove()


def post_worker_init(worker: Any) -> None:
    """Start to drain running answers as soon as a signal arrives.

    gunicorn's worker tells the application only after its connections have ended, so an answer
    that a client reads would be cut off by graceful_timeout. Ctrl-C also reaches the workers, and
    the master then sends SIGQUIT, so all three signals mean the same.
    """

    def stop_gracefully() -> None:
        from chat.answers import runner
        from chat.transfer import background
        from retrieval import event_loop

        event_loop.start(runner.drain(settings.SHUTDOWN_GRACE_S))
        event_loop.start(background.drain(settings.SHUTDOWN_GRACE_S))
        worker.handle_exit_signal()

    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        worker.loop.add_signal_handler(stop, stop_gracefully)


def worker_exit(_server: Any, _worker: Any) -> None:
    """Do not wait for the bundled model's threads: they may compute for another half a minute."""
    if settings.LLM == "local":
        os._exit(0)
