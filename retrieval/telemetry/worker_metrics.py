"""GET /metrics of a process that is no web server: a worker of the embedding queue."""

import atexit
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from django.db import connection

from retrieval.telemetry import metrics_folder

logger = logging.getLogger(__name__)


def serve_metrics() -> int | None:
    """Serve the metrics of this process, and of those that it will fork, in a thread of its own.

    Call it once, before anything is embedded or forked. Returns the port; None, and counts nothing,
    unless METRICS_PORT and METRICS_TOKEN are set. Raises CommandError if the port is taken.
    """
    if not (settings.METRICS_PORT and settings.METRICS_TOKEN):
        return None
    metrics_folder.create(None)
    atexit.register(metrics_folder.remove)
    from retrieval import log_counts
    from retrieval.telemetry import exposition

    exposition.registry()
    logging.getLogger().addHandler(log_counts.COUNTER)
    try:
        server = ThreadingHTTPServer(("", settings.METRICS_PORT), _Handler)
    except OSError as error:
        raise CommandError(f"METRICS_PORT {settings.METRICS_PORT}: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


class _Handler(BaseHTTPRequestHandler):
    """Answers like verse/metrics_endpoint.py."""

    def do_GET(self) -> None:  # http.server's own name
        from retrieval.telemetry import exposition

        authorization = self.headers.get("authorization", "").encode("latin-1", "replace")
        if self.path.partition("?")[0] != exposition.PATH:
            self._answer(404, b"")
        elif not exposition.is_allowed(authorization):
            self._answer(401, b"", ("www-authenticate", "Bearer"))
        else:
            try:
                shown = exposition.render(self.headers.get("accept", ""))
            finally:
                connection.close()
            self._answer(200, shown.body, ("content-type", shown.content_type))

    def log_message(self, *_args: Any) -> None:
        """Write no line for each scrape."""

    def _answer(self, status: int, body: bytes, *headers: tuple[str, str]) -> None:
        self.send_response(status)
        for name, value in (*headers, ("content-length", str(len(body)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)
