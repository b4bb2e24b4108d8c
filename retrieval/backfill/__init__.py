"""Embed what waits for it, in batches that are kept one by one: ``backfill_embeddings``."""

from retrieval.backfill.pending import count_pending
from retrieval.backfill.run import Backfill, Report, Stopped, backfill

__all__ = ["Backfill", "Report", "Stopped", "backfill", "count_pending"]
