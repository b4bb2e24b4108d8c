"""gunicorn finds this file by itself: `gunicorn verse.asgi:application`. Wrong settings end the start here."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from verse import settings

bind = f"0.0.0.0:{settings.PORT}"
workers = settings.WEB_CONCURRENCY
worker_class = "asgi"
asgi_lifespan = "on"
control_socket_disable = True
graceful_timeout = int(settings.SHUTDOWN_GRACE_S) + 5  # running answers first, then the connections that read them
timeout = 60
keepalive = 75  # longer than the balancers' usual 60 s, so that none meets a connection just closed
logconfig_dict = settings.LOGGING | {
    "loggers": settings.LOGGING["loggers"]  # type: ignore[operator]
    | {"gunicorn.error": {"handlers": [], "propagate": True, "level": "WARNING"}}
}
