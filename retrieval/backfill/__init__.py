"""Embed pending messages in batches, each committed by itself: ``backfill_embeddings``."""

from retrieval.backfill.backfill_tables import Backfill, backfill

__all__ = ["Backfill", "backfill"]
