"""Recalls nothing for "Thanks!" or "Tell me a joke": a question of few words, none of them known.

Any message is somehow near to such a question, and a shared word is chance. Measured in
docs/decisions/0017-recall-order.md, "Greetings and general questions".
"""

import re

import numpy as np

from retrieval.embeddings import bundled_models
from retrieval.recall.content_words import WORD
from retrieval.recall.rows import Rows

MAX_WORDS = 2
# The cosine that answers to real questions reach: known for the default model alone.
MIN_SIMILARITY = {bundled_models.DEFAULT: 0.30}
UNSPACED = re.compile("[\u3400-\u9fff]")  # a word of Chinese has two characters


def is_small_talk(words: str, rows: Rows, *, model: str) -> bool:
    """Whether no message has all of the question's few content ``words`` or is similar to it."""
    if model not in MIN_SIMILARITY or not rows.has_similarity.any():
        return False
    count = sum(len(word) / 2 if UNSPACED.match(word) else 1 for word in WORD.findall(words))
    return (
        count <= MAX_WORDS
        and rows.terms.hits.sum(axis=0).max(initial=0) < max(count, 1)
        and float(np.nanmax(rows.similarity)) < MIN_SIMILARITY[model]
    )
