"""Rehearses the rollout of memory: ``make rehearse``."""

from tests.rehearsal.stage import manage, old_code

__all__ = ["manage", "old_code"]
