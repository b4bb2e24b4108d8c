"""A receiver of traces: a real HTTP server that decodes OpenTelemetry's protobuf."""

import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self

from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import (
    ExportTraceServiceRequest as Export,
)
from opentelemetry.proto.trace.v1.trace_pb2 import Span

from tests.support import PATIENCE_S


class Receiver:
    """Collects spans at ``url``. ``bodies``: what it received, as bytes."""

    def __init__(self) -> None:
        self.bodies: list[bytes] = []
        self.paths: list[str] = []
        receiver = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                receiver.paths.append(self.path)
                receiver.bodies.append(self.rfile.read(int(self.headers["content-length"])))
                self.send_response(200)
                self.send_header("content-length", "0")
                self.end_headers()

            def log_message(self, *_args: Any) -> None:
                """Write nothing to standard error."""

        self._http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._http.server_port}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._http.serve_forever, daemon=True).start()
        return self

    def __exit__(self, *_exception: object) -> None:
        self._http.shutdown()
        self._http.server_close()

    @property
    def spans(self) -> list[Span]:
        """All spans so far, in the order in which they came."""
        return [
            span
            for body in list(self.bodies)
            for of_resource in Export.FromString(body).resource_spans
            for of_scope in of_resource.scope_spans
            for span in of_scope.spans
        ]

    def wait_for(self, condition: Callable[[list[Span]], bool]) -> list[Span]:
        """The spans, once the condition holds for them."""
        until = time.monotonic() + PATIENCE_S
        while not condition(spans := self.spans):
            assert time.monotonic() < until, sorted({span.name for span in spans})
            time.sleep(0.05)
        return spans
