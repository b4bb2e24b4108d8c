"""Sends traces by OpenTelemetry: its instrumentations of psycopg and aiohttp, and the turn's steps.

Call ``start`` in the process that serves, after a fork: a thread sends the spans. The SDK reads
the variables OTEL_* itself. docs/observability.md
"""

import os
import threading
from importlib.metadata import entry_points
from typing import cast
from urllib.parse import urlsplit

import requests
from django.conf import settings
from opentelemetry import propagate, trace
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.instrumentation.aiohttp_client import AioHttpClientInstrumentor
from opentelemetry.instrumentation.psycopg import PsycopgInstrumentor
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from retrieval.telemetry import spans
from retrieval.telemetry.safe_spans import RequestTraces, SafeExporter

LOOPBACK = ("127.0.0.1", "localhost", "::1")
END_S = 2.0  # for the last spans at the end of a process


def start() -> None:
    """Create spans from now on. Once in a process."""
    given: dict[str, str] = settings.OTEL
    if "service.name=" not in given.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        given = {"OTEL_SERVICE_NAME": "verse"} | given
    os.environ.update(given)  # those of .env too
    resource = Resource.create({"service.version": settings.VERSION})
    provider = TracerProvider(resource=resource, shutdown_on_exit=False)
    provider.sampler = RequestTraces(provider.sampler)
    provider.add_span_processor(BatchSpanProcessor(SafeExporter(exporter())))
    trace.set_tracer_provider(provider)
    if "OTEL_PROPAGATORS" not in given:
        # Not "baggage": what a client writes there would be sent to the model's server.
        propagate.set_global_textmap(TraceContextTextMapPropagator())
    PsycopgInstrumentor().instrument(tracer_provider=provider)
    AioHttpClientInstrumentor().instrument(tracer_provider=provider)
    spans.use(provider.get_tracer("verse", settings.VERSION))


def exporter() -> SpanExporter:
    """HTTP with protobuf, or the installed exporter that OTEL_EXPORTER_OTLP_PROTOCOL names."""
    if settings.OTEL_PROTOCOL == "http/protobuf":
        return OTLPSpanExporter(session=_session())
    name = f"otlp_proto_{settings.OTEL_PROTOCOL}"
    (installed,) = entry_points(group="opentelemetry_traces_exporter", name=name)
    return cast("SpanExporter", installed.load()())


def end() -> None:
    """Send the spans that wait, for END_S at most. Not on the event loop."""
    provider = trace.get_tracer_provider()
    if isinstance(provider, TracerProvider):
        sending = threading.Thread(target=provider.shutdown, daemon=True)
        sending.start()
        sending.join(END_S)


def _session() -> requests.Session:
    """A receiver on this machine is never asked through a proxy of the environment."""
    session = requests.Session()
    session.trust_env = urlsplit(settings.OTEL_ENDPOINT).hostname not in LOOPBACK
    return session
