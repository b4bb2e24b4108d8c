"""Which loggers write what: Django's setting LOGGING."""

from typing import Any


def logging_config(log_format: str) -> dict[str, Any]:
    """``log_format``: text or json, the formatters of verse/logs.py."""
    return {
        "version": 1,
        "disable_existing_loggers": False,
        "formatters": {
            "text": {"()": "verse.logs.TextFormatter"},
            "json": {"()": "verse.logs.JsonFormatter"},
        },
        "handlers": {"stderr": {"class": "logging.StreamHandler", "formatter": log_format}},
        "root": {"handlers": ["stderr"], "level": "INFO"},
        "loggers": {
            "django": {"handlers": [], "level": "INFO"},
            # Without a line for each model call, which would contain the address.
            "httpx2": {"level": "WARNING"},
            # Nor lines for each request at /mcp.
            "mcp": {"level": "WARNING"},
            "psycopg.pool": {"level": "ERROR"},
            # Nor lines for each job.
            "procrastinate": {"level": "WARNING"},
            "celery": {"level": "WARNING"},
            "kombu": {"level": "WARNING"},
            # A line for each batch; retrieval/telemetry/safe_spans.py logs one for an outage.
            "opentelemetry": {"level": "CRITICAL"},
        },
    }
