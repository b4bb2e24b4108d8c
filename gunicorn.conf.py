"""gunicorn finds this file by itself: `gunicorn verse.asgi:application`. Wrong settings end the start here."""

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from verse import settings

bind = f"0.0.0.0:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "asgi"
asgi_lifespan = "on"
control_socket_disable = True
limit_request_line = 400_000  # a search for 32,000 characters of 4 bytes each, percent-encoded
graceful_timeout = (
    int(settings.SHUTDOWN_GRACE_S) + 5
)  # running answers first, then the connections that read them
timeout = 60
keepalive = 75  # longer than the balancers' usual 60 s, so that none meets a connection just closed
logconfig_dict = settings.LOGGING | {
    "loggers": settings.LOGGING["loggers"]  # type: ignore[operator]
    | {"gunicorn.error": {"handlers": [], "propagate": True, "level": "WARNING"}}
}


def post_worker_init(worker: Any) -> None:
    """Let running answers know of a stop at once: the worker tells the application only after its connections.

    Ctrl-C reaches the workers too, and the master's answer to it is SIGQUIT: all of them mean the same here. Without
    this an answer that somebody listens to would be cut by graceful_timeout instead of ended and saved.
    """

    def stop_gracefully() -> None:
        from chat.answers import runner

        threading.Thread(target=runner.drain, args=[settings.SHUTDOWN_GRACE_S], daemon=True).start()
        worker.handle_exit_signal()

    for stop in (signal.SIGTERM, signal.SIGINT, signal.SIGQUIT):
        worker.loop.add_signal_handler(stop, stop_gracefully)


def worker_exit(_server: Any, _worker: Any) -> None:
    """The bundled model's threads first end what they compute, half a minute perhaps, for nobody: not waited for."""
    if settings.LLM == "local":
        os._exit(0)
