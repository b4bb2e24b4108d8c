"""Steps of a turn as spans of OpenTelemetry, and what work on the event loop knows of its request.

Without OTEL_EXPORTER_OTLP_ENDPOINT there is no tracer: a span costs a comparison, and OpenTelemetry
is not imported. tracing.py sets the tracer.
"""

import contextvars
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, Any

from retrieval.telemetry.log_context import request_context, turn_id

if TYPE_CHECKING:
    from opentelemetry.trace import Tracer

_NO_SPAN = nullcontext()


class _Process:
    """The tracer of this process; None: there are no spans."""

    tracer: "Tracer | None" = None


_process = _Process()


def use(tracer: "Tracer | None") -> None:
    """Create spans by this tracer from now on; by none if it is None."""
    _process.tracer = tracer


def step(name: str) -> AbstractContextManager[Any]:
    """Around a step of a turn: a span that ends with it. An exception's message is not kept."""
    if _process.tracer is None:
        return _NO_SPAN
    return _process.tracer.start_as_current_span(name, record_exception=False)


def trace_id() -> str | None:
    """Of the current span, in hexadecimal as OpenTelemetry shows it."""
    if _process.tracer is None:
        return None
    from opentelemetry.trace import format_trace_id, get_current_span

    current = get_current_span().get_span_context()
    return format_trace_id(current.trace_id) if current.is_valid else None


def carried_context() -> contextvars.Context:
    """A context with nothing but the caller's request, turn and span."""
    context = contextvars.Context()
    context.run(request_context.set, request_context.get())
    context.run(turn_id.set, turn_id.get())
    if _process.tracer is not None:
        from opentelemetry.context import attach, get_current

        context.run(attach, get_current())
    return context
