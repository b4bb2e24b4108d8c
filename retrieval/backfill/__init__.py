"""Embed pending messages in batches, each committed by itself: ``backfill_embeddings``."""

from retrieval.backfill.backfill_tables import Backfill, backfill
from retrieval.backfill.embed_table import Report
from retrieval.backfill.limits import EMBEDDINGS_OFF, OUTPUT_CLOSED, Cancelled, Limits
from retrieval.backfill.pending import count_pending

__all__ = [
    "EMBEDDINGS_OFF",
    "OUTPUT_CLOSED",
    "Backfill",
    "Cancelled",
    "Limits",
    "Report",
    "backfill",
    "count_pending",
]
