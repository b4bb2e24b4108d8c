"""Texts to vectors: by OpenAI's API or a bundled model, within a deadline, behind a circuit breaker."""

from retrieval.embeddings.embedding_service import get_embedding, get_embeddings_batch

__all__ = ["get_embedding", "get_embeddings_batch"]
