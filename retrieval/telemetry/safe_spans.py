"""What leaves the process of a span: its name, times, ids, and attributes of a short list.

Instrumentations also record addresses with their queries, SQL with literals, the messages of
exceptions, and headers. Whatever they add in later versions is left out too.
"""

import logging
from collections.abc import Sequence

from opentelemetry.context import Context
from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.sampling import Decision, Sampler, SamplingResult
from opentelemetry.trace import Link, SpanKind, TraceState, get_current_span
from opentelemetry.trace.status import Status
from opentelemetry.util.types import Attributes

logger = logging.getLogger(__name__)
# Of the semantic conventions, both those before and those since 1.23. A route is a pattern of ours,
# such as api/chats/<int:conversation_id>/; everything else has few values.
ALLOWED_ATTRIBUTES = {
    "http.method", "http.request.method", "http.route",
    "http.status_code", "http.response.status_code", "error.type",
    "db.system", "db.system.name", "db.name", "db.namespace",
}  # fmt: skip


class SafeExporter(SpanExporter):
    """Passes cleaned spans on to another exporter; one line in the log for each outage of it."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._is_away = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Called by the thread that sends; what cannot be sent is dropped."""
        try:
            result = self._exporter.export([cleaned(span) for span in spans])
        except Exception:  # noqa: BLE001 - an exporter of another package; the line below says so
            result = SpanExportResult.FAILURE
        is_away = result is not SpanExportResult.SUCCESS
        if is_away and not self._is_away:
            logger.warning("Traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; they are dropped")
        elif self._is_away and not is_away:
            logger.warning("Traces are sent again")
        self._is_away = is_away
        return result

    def shutdown(self) -> None:
        self._exporter.shutdown()


def cleaned(span: ReadableSpan) -> ReadableSpan:
    """The span without events, links, the description of its status, and other attributes."""
    attributes = {k: v for k, v in (span.attributes or {}).items() if k in ALLOWED_ATTRIBUTES}
    return ReadableSpan(
        name=span.name,
        context=span.context,
        parent=span.parent,
        resource=span.resource,
        attributes=attributes,
        kind=span.kind,
        status=Status(span.status.status_code),
        start_time=span.start_time,
        end_time=span.end_time,
        instrumentation_scope=span.instrumentation_scope,
    )


class RequestTraces(Sampler):
    """Another sampler, asked for requests and what belongs to them.

    A statement of the heartbeat or of another periodic task would be a trace of its own: many a
    second, without a request.
    """

    def __init__(self, sampler: Sampler) -> None:
        self._sampler = sampler

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Attributes = None,
        links: Sequence[Link] | None = None,
        trace_state: TraceState | None = None,
    ) -> SamplingResult:
        has_parent = get_current_span(parent_context).get_span_context().is_valid
        if kind is SpanKind.CLIENT and not has_parent:
            return SamplingResult(Decision.DROP)
        return self._sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        return f"RequestTraces({self._sampler.get_description()})"
