"""What operators see of a process: metrics, traces, and the ids that its log lines carry.

Metrics (metrics.py) exist with METRICS_TOKEN, traces (spans.py, tracing.py) with
OTEL_EXPORTER_OTLP_ENDPOINT. Without them nothing is imported, counted or written:
docs/decisions/0027-metrics-and-traces.md
"""

from retrieval.telemetry.worker_metrics import serve_metrics

__all__ = ["serve_metrics"]
