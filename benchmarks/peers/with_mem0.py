"""mem0's pgvector store: the table, index and search that its Memory uses, with the payload that Memory writes."""

import hashlib

import peer
from mem0.configs.vector_stores.pgvector import PGVectorConfig
from mem0.vector_stores.pgvector import PGVector

SAID_AT = "2026-01-01T00:00:00+00:00"


class Store:
    """HNSW as it is switched on by default, but built after loading: Memory's order would take half an hour."""

    packages = ("mem0ai", "psycopg")

    def __init__(self, url):
        self._url = url
        self._store = self._open(hnsw=False)

    def add(self, ids, users, texts, vectors):
        """A batch."""
        self._store.insert(vectors, [payload(*one) for one in zip(users, texts, strict=True)], ids)

    def index(self):
        """Create what the collection lacks: its HNSW index."""
        self._store = self._open(hnsw=True)
        self._store.create_col()

    def look(self, user, vector):
        """Ids of the five nearest."""
        return [
            one.id for one in self._store.search("", vector, top_k=5, filters={"user_id": user})
        ]

    def _open(self, *, hnsw):
        config = PGVectorConfig(connection_string=self._url, collection_name="memories", hnsw=hnsw)
        return PGVector(**config.model_dump())


def payload(user, text):
    """As Memory.add makes it."""
    digest = hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()
    times = {"created_at": SAID_AT, "updated_at": SAID_AT}
    return {"user_id": user, "data": text, "hash": digest, "text_lemmatized": text, **times}


if __name__ == "__main__":
    peer.main(Store)
