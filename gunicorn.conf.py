"""gunicorn finds this file by itself: `gunicorn verse.asgi:application`. Wrong settings end the start here."""

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
graceful_timeout = int(settings.SHUTDOWN_GRACE_S) + 5  # running answers first, then the connections that read them
timeout = 60
keepalive = 75  # longer than the balancers' usual 60 s, so that none meets a connection just closed
logconfig_dict = settings.LOGGING | {
    "loggers": settings.LOGGING["loggers"]  # type: ignore[operator]
    | {"gunicorn.error": {"handlers": [], "propagate": True, "level": "WARNING"}}
}


def post_worker_init(worker: Any) -> None:
    """Let running answers know of SIGTERM at once: the worker tells the application only after its connections.

    Without this an answer that somebody listens to would be cut by graceful_timeout instead of ended and saved.
    """

    def stop_gracefully() -> None:
        from chat import running

        threading.Thread(target=running.drain, args=[settings.SHUTDOWN_GRACE_S], daemon=True).start()
        worker.handle_exit_signal()

    worker.loop.add_signal_handler(signal.SIGTERM, stop_gracefully)
