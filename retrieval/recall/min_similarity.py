"""How similar two texts must be to be related: a number that belongs to the embedding model.

Only for messages that share no word with the question (``RAG_MIN_SIMILARITY``). It was measured
for the bundled models. For others it is computed from stored vectors: the similarity that hardly
any two messages of different users reach.
"""

from contextlib import suppress

import numpy as np
import pgvector
from django.conf import settings
from psycopg import sql

from retrieval import db
from retrieval.embeddings import bundled_models
from retrieval.message_tables import select_message
from retrieval.models import EmbeddingModel, message_tables
from retrieval.runtime import Expiring

# MiniLM: of 100 questions about another person's life, 4 recalled a message by meaning alone at
# 0.40, 17 at 0.35. The others: any minimum loses evidence in other languages than the question's.
# docs/decisions/0010-hybrid-recall.md and 0017-recall-order.md
MEASURED = {bundled_models.MINILM: 0.40, bundled_models.DEFAULT: -1.0, bundled_models.E5: -1.0}
QUANTILE = 0.95  # of the bundled model's unrelated pairs that is 0.43
SAMPLE_MESSAGES, MIN_SAMPLE_MESSAGES = 400, 40
MEASURE_AGAIN_S = 86_400
LOOK_AGAIN_S = 60.0
# The first process to get here measures for all. Locks the model's row.
CLAIM = """
    UPDATE embedding_models SET measured_at = now()
    WHERE current AND (min_similarity IS NULL
        OR measured_at < now() - make_interval(secs => %(seconds)s))
    RETURNING id
"""
SAMPLE = sql.SQL("""
    WITH drawn AS MATERIALIZED (
        SELECT id FROM message_memories WHERE model = %(model)s ORDER BY random() LIMIT %(rows)s
    )
    SELECT m.user_id, {vector}.vector_send(m.embedding)
    FROM drawn CROSS JOIN LATERAL ({message}) m WHERE m.embedding IS NOT NULL
""")

_stored: Expiring[tuple[str, float]] = Expiring()  # model and value


def min_similarity(model: str) -> float:
    """The similarity required of vectors of this model; -1 leaves none out. Raises NoMemory.

    RAG_MIN_SIMILARITY if set, else what was measured. At most one query every LOOK_AGAIN_S.
    """
    if settings.RAG_MIN_SIMILARITY is not None:
        return float(settings.RAG_MIN_SIMILARITY)
    if model in MEASURED:
        return MEASURED[model]
    stored = _stored.get()
    if stored is None or stored[0] != model:
        with db.require_memory():
            row = EmbeddingModel.objects.filter(current=True, name=model).first()
        value = -1.0 if row is None or row.min_similarity is None else row.min_similarity
        stored = _stored.set((model, value), seconds=LOOK_AGAIN_S)
    return stored[1]


def measure(*, seconds: float = MEASURE_AGAIN_S) -> None:
    """Compute the current model's number from a sample, unless it is younger than ``seconds``.

    Three statements; the sample is drawn from an index of memory's table, 0.3 s for a million
    messages. Does nothing without memory.
    """
    with suppress(db.NoMemory), db.require_memory():
        for (model,) in db.execute(CLAIM, {"seconds": seconds}):
            value = _of_sample(model)
            if value is not None:
                EmbeddingModel.objects.filter(pk=model).update(min_similarity=value)


def _of_sample(model: int) -> float | None:
    """The QUANTILE of the similarities of pairs of different users; of all pairs, if few are so."""
    rows = db.execute(_sample_statement(), {"model": model, "rows": SAMPLE_MESSAGES})
    if len(rows) < MIN_SAMPLE_MESSAGES:
        return None
    users = np.array([user for user, _ in rows])
    # Binary: as numbers of Python's they would leave the process 20 MB larger.
    vectors = np.array([pgvector.Vector.from_binary(vector).to_numpy() for _, vector in rows])
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.triu(np.ones((len(rows), len(rows)), dtype=bool), 1)
    unrelated = pairs & (users[:, None] != users[None, :])
    chosen = unrelated if unrelated.sum() >= MIN_SAMPLE_MESSAGES else pairs
    return float(np.quantile((vectors @ vectors.T)[chosen], QUANTILE))


@db.composed_once
def _sample_statement() -> sql.Composed:
    columns, ref = sql.SQL("user_id, embedding"), sql.SQL("drawn.id")
    message = select_message(message_tables(), columns, ref=ref)
    return SAMPLE.format(message=message, vector=db.VECTOR_SCHEMA)
