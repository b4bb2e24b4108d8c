"""langchain-postgres: PGVectorStore with the user in a metadata column, as in its guide."""

import peer
from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex

TABLE = "memories"


class Computed(Embeddings):
    """Returns vectors that were computed before."""

    def __init__(self):
        self.next = []

    def embed_documents(self, texts):
        return self.next

    def embed_query(self, text):
        """Not used: questions are vectors."""
        raise NotImplementedError


class Store:
    """HNSW with the library's default parameters, built after loading."""

    packages = ("langchain-postgres", "psycopg", "SQLAlchemy")

    def __init__(self, url):
        engine = PGEngine.from_connection_string(
            url.replace("postgresql:", "postgresql+psycopg:", 1)
        )
        self._embeddings = Computed()
        column = Column("user_id", "TEXT")
        engine.init_vectorstore_table(TABLE, 1536, metadata_columns=[column])
        self._store = PGVectorStore.create_sync(
            engine, self._embeddings, TABLE, metadata_columns=["user_id"]
        )

    def add(self, ids, users, texts, vectors):
        """Add a batch. The library inserts row by row."""
        self._embeddings.next = vectors
        self._store.add_texts(texts, [{"user_id": user} for user in users], ids=ids)

    def index(self):
        """Build the HNSW index."""
        self._store.apply_vector_index(HNSWIndex())

    def look(self, user, vector):
        """Ids of the five nearest."""
        documents = self._store.similarity_search_by_vector(vector, k=5, filter={"user_id": user})
        return [str(document.id) for document in documents]


if __name__ == "__main__":
    peer.main(Store)
