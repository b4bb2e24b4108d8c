"""Spans of a turn's steps, and what leaves the process of them."""

import json
import logging
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress

import pytest
from django.contrib.auth.models import User
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor, SpanExporter, SpanExportResult
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.sdk.trace.sampling import ALWAYS_ON
from opentelemetry.trace import SpanKind, Tracer

from chat.memory.embed import finish_embedding_jobs
from chat.models import StandaloneChat
from chat.tests.support import Api
from fake_openai import Answer, FakeOpenAI, Refuse
from retrieval.telemetry import log_context, spans
from retrieval.telemetry.safe_spans import RequestTraces, SafeExporter
from tests.support import PATIENCE_S
from verse.logs import JsonFormatter

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.newest_schema]
CANARY = "Zyxwv"
STEPS = {
    "turn",
    "turn.embedding",
    "turn.recall",
    "turn.model",
    "turn.save",
    "turn.answer_embedding",
}


@pytest.fixture
def memory() -> InMemorySpanExporter:
    """Collects the spans that leave the process."""
    return InMemorySpanExporter()


@pytest.fixture
def tracer(memory: InMemorySpanExporter) -> Iterator[Tracer]:
    """A tracer like the server's; spans are exported when they end."""
    provider = TracerProvider(sampler=RequestTraces(ALWAYS_ON), shutdown_on_exit=False)
    provider.add_span_processor(SimpleSpanProcessor(SafeExporter(memory)))
    tracer = provider.get_tracer("test")
    spans.use(tracer)
    yield tracer
    spans.use(None)


def id_of(span: ReadableSpan) -> int:
    return span.context.span_id if span.context else 0


def parent_of(span: ReadableSpan) -> int:
    return span.parent.span_id if span.parent else 0


def say(user: User, api: Api, content: str) -> None:
    chat = StandaloneChat.objects.create(user=user)
    api(user).post(f"/api/chats/{chat.pk}/messages/", {"content": content}, format="json")
    finish_embedding_jobs()


def spans_of_turn(memory: InMemorySpanExporter) -> list[ReadableSpan]:
    """The spans so far, once that of the whole turn has ended."""
    until = time.monotonic() + PATIENCE_S
    while not any(span.name == "turn" for span in memory.get_finished_spans()):
        assert time.monotonic() < until
        time.sleep(0.01)
    return list(memory.get_finished_spans())


def test_the_steps_of_a_turn_are_spans_of_its_request(
    alice: User, api: Api, remembering: FakeOpenAI, tracer: Tracer, memory: InMemorySpanExporter
) -> None:
    remembering.chat.default = Answer("I see.")
    with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
        say(alice, api, "What is the lizard called?")
    exported = {span.name: span for span in spans_of_turn(memory)}
    assert exported.keys() == STEPS | {"request"}
    trace_id = request.get_span_context().trace_id
    assert {span.context and span.context.trace_id for span in exported.values()} == {trace_id}
    assert {parent_of(exported[name]) for name in STEPS - {"turn"}} == {id_of(exported["turn"])}
    assert parent_of(exported["turn"]) == request.get_span_context().span_id


def test_a_failed_step_tells_nothing_of_why(
    alice: User, api: Api, remembering: FakeOpenAI, tracer: Tracer, memory: InMemorySpanExporter
) -> None:
    remembering.chat.default = Refuse(500, message=CANARY)
    remembering.embeddings.default = Refuse(400, message=CANARY)
    say(alice, api, f"What is {CANARY}?")
    exported = spans_of_turn(memory)
    failed = {span.name for span in exported if not span.status.is_ok}
    assert "turn.model" in failed
    assert CANARY not in "".join(span.to_json() for span in exported)


def test_only_listed_attributes_leave_the_process(
    tracer: Tracer, memory: InMemorySpanExporter
) -> None:
    allowed = {"http.route": "api/chats/", "http.request.method": "GET"}
    hidden = dict.fromkeys(("url.full", "http.target", "db.statement", "db.user"), CANARY)
    link = trace.Link(trace.INVALID_SPAN_CONTEXT, {"x": CANARY})
    with (
        suppress(ValueError),
        tracer.start_as_current_span("GET", attributes=allowed | hidden, links=[link]) as span,
    ):
        span.add_event("exception", {"exception.message": CANARY})
        raise ValueError(CANARY)
    (exported,) = memory.get_finished_spans()
    assert dict(exported.attributes or {}) == allowed
    assert not exported.status.is_ok
    assert CANARY not in exported.to_json()


def test_statements_without_a_request_are_no_traces(
    tracer: Tracer, memory: InMemorySpanExporter
) -> None:
    with tracer.start_as_current_span("UPDATE", kind=SpanKind.CLIENT):
        pass
    with (
        tracer.start_as_current_span("GET", kind=SpanKind.SERVER),
        tracer.start_as_current_span("SELECT", kind=SpanKind.CLIENT),
    ):
        pass
    assert [span.name for span in memory.get_finished_spans()] == ["SELECT", "GET"]


class Unreliable(SpanExporter):
    """Exports as the list of results says; an exception is raised."""

    def __init__(self, *results: SpanExportResult | Exception) -> None:
        self.results = list(results)

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        result = self.results.pop(0)
        if isinstance(result, Exception):
            raise result
        return result


def test_an_outage_of_the_receiver_is_one_line(caplog: pytest.LogCaptureFixture) -> None:
    success, failure = SpanExportResult.SUCCESS, SpanExportResult.FAILURE
    exporter = SafeExporter(
        Unreliable(success, failure, ValueError(CANARY), failure, success, success, failure)
    )
    for _ in range(7):
        exporter.export([])
    assert [record.message for record in caplog.records] == [
        "Traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; they are dropped",
        "Traces are sent again",
        "Traces cannot be sent to OTEL_EXPORTER_OTLP_ENDPOINT; they are dropped",
    ]


def test_lines_of_a_turn_have_its_ids(
    alice: User, api: Api, remembering: FakeOpenAI, tracer: Tracer, caplog: pytest.LogCaptureFixture
) -> None:
    lines = []

    class Collect(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            lines.append(json.loads(JsonFormatter().format(record)))

    handler = Collect()
    logging.getLogger("chat").addHandler(handler)
    remembering.chat.default = Refuse(500)
    try:
        with tracer.start_as_current_span("request", kind=SpanKind.SERVER) as request:
            log_context.begin_request()
            say(alice, api, "What is the lizard called?")
    finally:
        logging.getLogger("chat").removeHandler(handler)
        log_context.request_context.set(None)
    (line,) = [line for line in lines if line["message"].startswith("No answer from")]
    answer = StandaloneChat.objects.get().messages.get(role="assistant")
    assert line["turn_id"] == f"chat-{answer.pk}"
    assert len(line["request_id"]) == 16
    assert line["trace_id"] == trace.format_trace_id(request.get_span_context().trace_id)


def test_lines_outside_requests_have_no_ids() -> None:
    record = logging.LogRecord("chat", logging.INFO, "", 1, "Hello", None, None)
    assert json.loads(JsonFormatter().format(record)).keys() == {
        "time", "level", "logger", "message"
    }  # fmt: skip
