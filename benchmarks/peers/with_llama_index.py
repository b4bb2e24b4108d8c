"""llama-index's PGVectorStore: HNSW as in its guide, the user in indexed metadata."""

import peer
from llama_index.core.schema import TextNode
from llama_index.core.vector_stores.types import MetadataFilter, MetadataFilters, VectorStoreQuery
from llama_index.vector_stores.postgres import PGVectorStore

HNSW = {
    "hnsw_m": 16,
    "hnsw_ef_construction": 64,
    "hnsw_ef_search": 40,
    "hnsw_dist_method": "vector_cosine_ops",
}


class Store:
    """The first use of a store with HNSW parameters creates the index, so after loading."""

    packages = ("llama-index-vector-stores-postgres", "llama-index-core", "SQLAlchemy")

    def __init__(self, url):
        self._url = url
        self._store = self._open(None)

    def add(self, ids, users, texts, vectors):
        """Add a batch."""
        rows = zip(ids, users, texts, vectors, strict=True)
        self._store.add([
            TextNode(id_=pk, text=text, metadata={"user_id": user}, embedding=vector)
            for pk, user, text, vector in rows
        ])  # fmt: skip

    def index(self):
        """Build the HNSW index, by a query without results."""
        self._store = self._open(dict(HNSW))
        self.look("none", [1.0] * 1536)

    def look(self, user, vector):
        """Ids of the five nearest."""
        filters = MetadataFilters(filters=[MetadataFilter(key="user_id", value=user)])
        query = VectorStoreQuery(query_embedding=vector, similarity_top_k=5, filters=filters)
        return self._store.query(query).ids

    def _open(self, hnsw):
        return PGVectorStore.from_params(
            connection_string=self._url.replace("postgresql:", "postgresql+psycopg2:", 1),
            async_connection_string=self._url.replace("postgresql:", "postgresql+asyncpg:", 1),
            table_name="memories",
            embed_dim=1536,
            hnsw_kwargs=hnsw,
            indexed_metadata_keys={("user_id", "text")},
        )


if __name__ == "__main__":
    peer.main(Store)
