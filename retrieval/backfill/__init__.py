"""Embed what waits for it, in batches that are kept one by one: ``backfill_embeddings``."""

from retrieval.backfill.backfill_tables import Backfill, backfill
from retrieval.backfill.embed_table import Report
from retrieval.backfill.limits import OFF, UNREAD, Limits, Stopped
from retrieval.backfill.pending import count_pending

__all__ = ["OFF", "UNREAD", "Backfill", "Limits", "Report", "Stopped", "backfill", "count_pending"]
