"""Traces of requests, by OpenTelemetry's instrumentation of Django."""

import asyncio
from importlib import import_module

from django.conf import settings


def start() -> None:
    """If OTEL_EXPORTER_OTLP_ENDPOINT is set. Before Django's handler loads its middleware."""
    if settings.OTEL_ENDPOINT:
        import_module("retrieval.telemetry.tracing").start()
        import_module("opentelemetry.instrumentation.django").DjangoInstrumentor().instrument()


async def end() -> None:
    """Send the last spans."""
    if settings.OTEL_ENDPOINT:
        await asyncio.to_thread(import_module("retrieval.telemetry.tracing").end)
