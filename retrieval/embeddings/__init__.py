"""Texts to vectors, within a deadline and behind a circuit breaker."""

from retrieval.embeddings.embedding_service import get_embedding, get_embeddings_batch

__all__ = ["get_embedding", "get_embeddings_batch"]
