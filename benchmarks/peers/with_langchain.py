"""langchain-postgres: PGVectorStore the user in a metadata column of its own, as its guide has it for filters."""

import peer
from langchain_core.embeddings import Embeddings
from langchain_postgres import Column, PGEngine, PGVectorStore
from langchain_postgres.v2.indexes import HNSWIndex

TABLE = "memories"


class Given(Embeddings):
    """Vectors that are there already."""

    def __init__(self):
        self.next = []

    def embed_documents(self, texts):
        """Those of the batch."""
        return self.next

    def embed_query(self, text):
        """Never asked: questions come as vectors."""
        raise NotImplementedError


class Store:
    """HNSW with the library's own values, applied after loading."""

    packages = ("langchain-postgres", "psycopg", "SQLAlchemy")

    def __init__(self, url):
        engine = PGEngine.from_connection_string(
            url.replace("postgresql:", "postgresql+psycopg:", 1)
        )
        self._given = Given()
        column = Column("user_id", "TEXT")
        engine.init_vectorstore_table(TABLE, 1536, metadata_columns=[column])
        self._store = PGVectorStore.create_sync(
            engine, self._given, TABLE, metadata_columns=["user_id"]
        )

    def add(self, ids, users, texts, vectors):
        """A batch; the library inserts row by row."""
        self._given.next = vectors
        self._store.add_texts(texts, [{"user_id": user} for user in users], ids=ids)

    def index(self):
        """HNSW."""
        self._store.apply_vector_index(HNSWIndex())

    def look(self, user, vector):
        """Ids of the five nearest."""
        found = self._store.similarity_search_by_vector(vector, k=5, filter={"user_id": user})
        return [str(one.id) for one in found]


if __name__ == "__main__":
    peer.main(Store)
