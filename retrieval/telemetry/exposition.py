"""Metrics as text: who may read them, and what is read. No answer depends on the process asked."""

import hmac
from functools import cache
from typing import NamedTuple

from django.conf import settings
from prometheus_client import CollectorRegistry, disable_created_metrics
from prometheus_client.exposition import choose_encoder
from prometheus_client.multiprocess import MultiProcessCollector

from retrieval.telemetry import metrics
from retrieval.telemetry.database_figures import DatabaseFigures

PATH = "/metrics"


class Exposition(NamedTuple):
    body: bytes
    content_type: str


@cache
def registry() -> CollectorRegistry:
    """What /metrics shows, over all processes of the server. The first call starts to count."""
    # One more series for each counter, of no use here.
    disable_created_metrics()  # type: ignore[no-untyped-call]
    shown = CollectorRegistry()
    try:
        MultiProcessCollector(shown)  # type: ignore[no-untyped-call]
    except ValueError:  # without a folder there is one process
        metrics.enable(shown)
    else:
        metrics.enable(CollectorRegistry())  # of this process; the folder has those of all
    shown.register(DatabaseFigures())
    return shown


def is_allowed(authorization: bytes) -> bool:
    """Whether the header ``Authorization`` holds METRICS_TOKEN. Takes the same time for each."""
    wanted = b"Bearer " + settings.METRICS_TOKEN.encode()
    return bool(settings.METRICS_TOKEN) and hmac.compare_digest(authorization, wanted)


def render(accept: str) -> Exposition:
    """In the format that the header ``Accept`` prefers. A step: reads files and the database."""
    encode, content_type = choose_encoder(accept)
    return Exposition(encode(registry()), content_type)
