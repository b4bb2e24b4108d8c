"""What operators see of a process: metrics, traces, and the ids that its log lines carry.

Metrics (metrics.py) exist with METRICS_TOKEN, traces (spans.py, tracing.py) with
OTEL_EXPORTER_OTLP_ENDPOINT. Without them nothing is imported, counted or written:
docs/decisions/0027-metrics-and-traces.md
"""

from django.conf import settings

from retrieval.telemetry import metrics_folder


def serve_metrics() -> int | None:
    """For a process that is no web server, such as a worker: serve the metrics in a thread.

    Those of this process and of all that it will fork; call it once, before anything is embedded or
    forked. Returns the port; None, and counts nothing, unless METRICS_PORT and METRICS_TOKEN are
    set. Raises CommandError if the port is taken.
    """
    if not (settings.METRICS_PORT and settings.METRICS_TOKEN):
        return None
    metrics_folder.create(None)  # prometheus_client looks for it when it is imported
    from retrieval.telemetry.worker_metrics import serve

    return serve(settings.METRICS_PORT)
