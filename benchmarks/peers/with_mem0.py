"""Measures mem0's pgvector store: the table, index and search of mem0's ``Memory`` class."""

import hashlib

import peer
from mem0.configs.vector_stores.pgvector import PGVectorConfig
from mem0.vector_stores.pgvector import PGVector

CREATED_AT = "2026-01-01T00:00:00+00:00"


class Store:
    """HNSW with default parameters, built after loading. With it, loading takes half an hour."""

    packages = ("mem0ai", "psycopg")

    def __init__(self, url):
        self._url = url
        self._store = self._open(hnsw=False)

    def add(self, ids, users, texts, vectors):
        """Add a batch."""
        payloads = [payload(user, text) for user, text in zip(users, texts, strict=True)]
        self._store.insert(vectors, payloads, ids)

    def index(self):
        """Build the HNSW index."""
        self._store = self._open(hnsw=True)
        self._store.create_col()

    def look(self, user, vector):
        """The ids of the user's five nearest messages."""
        results = self._store.search("", vector, top_k=5, filters={"user_id": user})
        return [result.id for result in results]

    def _open(self, *, hnsw):
        config = PGVectorConfig(connection_string=self._url, collection_name="memories", hnsw=hnsw)
        return PGVector(**config.model_dump())


def payload(user, text):
    """The payload that ``Memory.add`` stores with each vector."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    times = {"created_at": CREATED_AT, "updated_at": CREATED_AT}
    return {"user_id": user, "data": text, "hash": digest, "text_lemmatized": text, **times}


if __name__ == "__main__":
    peer.main(Store)
