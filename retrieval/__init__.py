"""Rows and vectors: what the chat remembers with. Knows nothing of chat."""
