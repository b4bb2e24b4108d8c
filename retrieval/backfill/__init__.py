"""Embed what waits for it, in batches that are kept one by one: ``backfill_embeddings``."""

from retrieval.backfill.limits import OFF, UNREAD, Limits, Stopped
from retrieval.backfill.pending import count_pending
from retrieval.backfill.run import Backfill, backfill
from retrieval.backfill.table import Report

__all__ = ["OFF", "UNREAD", "Backfill", "Limits", "Report", "Stopped", "backfill", "count_pending"]
