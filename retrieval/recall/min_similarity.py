"""How similar two texts must be to have to do with each other: a number that belongs to the embedding model.

Only for messages found by meaning alone (``RAG_MIN_SIMILARITY``). For the bundled model it was measured; for others
it is taken from the stored vectors: hardly any pair of messages of different people is as similar.
"""

import time
from dataclasses import dataclass

import numpy as np
from django.conf import settings

from retrieval import db
from retrieval.embeddings import local_model
from retrieval.models import message_tables

# Of 100 questions about somebody else's life, 4 found a message by meaning alone at 0.40, 17 at 0.35; of the evidence
# of questions about one's own nothing was lost up to 0.6. docs/decisions/0010-hybrid-recall.md
MEASURED = {local_model.NAME: 0.40}
QUANTILE = 0.95  # of the bundled model's unrelated pairs that is 0.43
SAMPLE, LEAST_SAMPLE = 400, 40  # messages
MEASURE_AGAIN_S = 86_400
LOOK_AGAIN_S = 60.0
FOUND = "SELECT min_similarity FROM embedding_models WHERE current AND name = %(model)s"
# Whoever comes first measures, for all processes.
CLAIM = """
    UPDATE embedding_models SET measured_at = now() WHERE current
        AND (min_similarity IS NULL OR measured_at < now() - make_interval(secs => %(seconds)s)) RETURNING id
"""
DRAWN = """
    WITH drawn AS MATERIALIZED (
        SELECT id FROM message_memories WHERE model = %(model)s ORDER BY random() LIMIT %(rows)s
    )
    SELECT m.user_id, {vector}.vector_send(m.embedding) FROM drawn CROSS JOIN LATERAL ({texts}) m
    WHERE m.embedding IS NOT NULL
"""
TEXT = "SELECT user_id, embedding FROM {table} WHERE id = CASE WHEN (drawn.id & 1) = {number} THEN drawn.id >> 1 END"
KEEP = "UPDATE embedding_models SET min_similarity = %(found)s WHERE id = %(model)s"


@dataclass
class _Seen:
    model: str = ""
    value: float = -1.0
    at: float = -LOOK_AGAIN_S


_seen = _Seen()


def min_similarity(model: str) -> float:
    """The similarity in force for vectors of this model; -1 leaves none out. At most one query, at times.

    RAG_MIN_SIMILARITY stands above all, then what was measured. Raises NoMemory.
    """
    if settings.RAG_MIN_SIMILARITY is not None:
        return float(settings.RAG_MIN_SIMILARITY)
    if model in MEASURED:
        return MEASURED[model]
    if model != _seen.model or time.monotonic() - _seen.at > LOOK_AGAIN_S:
        rows = db.execute(FOUND, {"model": model})
        _seen.model, _seen.at = model, time.monotonic()
        _seen.value = rows[0][0] if rows and rows[0][0] is not None else -1.0
    return _seen.value


def measure(*, seconds: float = MEASURE_AGAIN_S) -> None:
    """Take the current model's number from a sample, where nobody has for so many seconds. Nothing without memory.

    Four statements; the sample is drawn from an index of recall's table, 0.3 s for a million messages.
    """
    try:
        for (model,) in db.execute(CLAIM, {"seconds": seconds}):
            found = _of_sample(model)
            if found is not None:
                db.execute(KEEP, {"model": model, "found": found})
    except db.NoMemory:
        return


def _of_sample(model: int) -> float | None:
    """The QUANTILE of the similarities of pairs of different users; of all pairs where there is one user alone."""
    texts = " UNION ALL ".join(
        TEXT.format(table=one.table, number=one.kind_bit) for one in message_tables()
    )
    rows = db.execute(DRAWN.replace("{texts}", texts), {"model": model, "rows": SAMPLE})
    if len(rows) < LEAST_SAMPLE:
        return None
    users = np.array([row[0] for row in rows])
    # Binary: as numbers of Python's they would leave the process 20 MB larger.
    vectors = np.array([np.frombuffer(row[1], ">f4", offset=4) for row in rows], dtype=np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    pairs = np.triu(np.ones((len(rows), len(rows)), dtype=bool), 1)
    strangers = pairs & (users[:, None] != users[None, :])
    chosen = strangers if strangers.sum() >= LEAST_SAMPLE else pairs
    return float(np.quantile((vectors @ vectors.T)[chosen], QUANTILE))


def reset() -> None:
    """Look again at the next question."""
    _seen.at = -LOOK_AGAIN_S
