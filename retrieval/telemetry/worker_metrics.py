"""Serves GET /metrics of a process that is no web server: a worker of the embedding queue."""

import atexit
import logging
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

from django.core.management.base import CommandError
from django.db import connection

from retrieval import log_counts
from retrieval.telemetry import exposition, metrics_folder


def serve(port: int) -> int:
    """Count, and serve in a thread until the process ends. Returns the port."""
    atexit.register(metrics_folder.remove)
    exposition.registry()
    logging.getLogger().addHandler(log_counts.COUNTER)
    try:
        server = ThreadingHTTPServer(("", port), _Handler)
    except OSError as error:
        raise CommandError(f"METRICS_PORT {port} cannot be used: {error.strerror}") from error
    threading.Thread(target=server.serve_forever, name="metrics", daemon=True).start()
    return int(server.server_port)


class _Handler(BaseHTTPRequestHandler):
    """Answers like verse/metrics_endpoint.py."""

    def do_GET(self) -> None:  # http.server's own name
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
