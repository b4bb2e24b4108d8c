"""Reads from a streaming replica what it certainly has: docs/decisions/0029-read-replica.md."""
