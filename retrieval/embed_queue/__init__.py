"""Embedding by workers: servers ring a bell by jobs of an existing engine, workers embed.

A message without a vector is the truth; a job only says that there is one. So a lost job is late,
and one that comes twice does nothing: docs/decisions/0028-embedding-queue.md.
"""

import logging

# In the command the service's failures are reported once by the worker itself, and not by each call
# (management/backfill_progress.py, silence_logs). These lines are not silenced.
logging.getLogger(__name__).setLevel(logging.INFO)
