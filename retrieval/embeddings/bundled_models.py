"""The bundled embedding models (EMBEDDINGS=local); they run in this process, without a service.

EMBEDDING_MODEL chooses one. If it is not set, the model of the stored vectors is used (``kept``).
In an empty database it is the default: an English model and a multilingual one, their numbers next
to each other. Measured in docs/decisions/0015-bundled-models.md.
"""

import threading
from collections.abc import Iterator, Sequence
from importlib import import_module
from typing import Protocol, cast

import numpy as np
from django.conf import settings

from retrieval.db import NoMemory, require_memory
from retrieval.embeddings import minilm
from retrieval.models import EmbeddingModel
from retrieval.runtime import Expiring
from retrieval.vectors import DIMENSIONS, Vector

MINILM = "local:all-MiniLM-L6-v2-int8"
DEFAULT = "local:all-MiniLM-L6-v2-int8+use-multilingual-v3"
E5 = "local:multilingual-e5-small-q4-centred"
# Values of EMBEDDING_MODEL; verse/settings.py refuses others.
BY_SETTING = {"all-MiniLM-L6-v2": MINILM, "minilm+use": DEFAULT, "multilingual-e5-small": E5}
# The modules whose vectors stand next to each other. Each has length 1, so their product is the
# mean of the cosines.
PARTS = {
    MINILM: ("minilm",),
    DEFAULT: ("minilm", "universal_encoder"),
    E5: ("multilingual_e5",),
}
RUN_TEXTS = minilm.RUN_TEXTS
LOOK_AGAIN_S = 15.0  # as current_model.CHECK_AGAIN_S

_kept: Expiring[str] = Expiring()  # the current model, of whatever kind
_lock = threading.Lock()


class Part(Protocol):
    """A module of this package that contains a model."""

    @staticmethod
    def embed(texts: Sequence[str]) -> Vector:
        """Shape (texts, numbers), each of length 1."""


def chosen() -> str | None:
    """The model that EMBEDDING_MODEL names; None if it names none of the bundled ones."""
    return BY_SETTING.get(settings.EMBEDDING_MODEL)


def kept() -> str | None:
    """The bundled model of the stored vectors; None if they come from another, or there are none.

    So a database that an earlier default has filled goes on with that. At most one query every
    LOOK_AGAIN_S.
    """
    stored = _kept.get()
    if stored is None:
        try:
            with require_memory():
                rows = EmbeddingModel.objects.filter(current=True).values_list("name", flat=True)
                stored = rows.first()
        except NoMemory:
            return None
        if stored is not None:
            _kept.set(stored, seconds=LOOK_AGAIN_S)
    return stored if stored in PARTS else None


def forget_kept() -> None:
    """Look again at once: the current model has changed."""
    _kept.forget()


def follows(stored: str) -> bool:
    """Whether the settings let the database choose, and ``stored`` is a bundled model."""
    return settings.EMBEDDINGS == "local" and chosen() is None and stored in PARTS


def choice_of(model: str) -> list[str]:
    """The line of ``.env`` that chooses it; none while the database chooses."""
    names = {name: setting for setting, name in BY_SETTING.items()}
    return [f"EMBEDDING_MODEL={names[model]}"] if chosen() and model in names else []


def embed(texts: Sequence[str], model: str) -> list[Vector]:
    """A vector for each text, in order: 1,536 numbers of length 1, the last of them zeros.

    Only the beginning of a text counts: see each model's module. Loading a model takes under 1 s.
    Thread-safe. Raises EmbeddingError if the model is not installed.
    """
    vectors: dict[int, Vector] = {}
    for run_vectors in embed_in_runs(texts, model):
        vectors |= run_vectors
    return [vectors[index] for index in range(len(texts))]


def embed_in_runs(texts: Sequence[str], model: str) -> Iterator[dict[int, Vector]]:
    """Like ``embed``, a few texts at a time, by index: a caller can stop after each 0.5 s.

    A run has texts of similar length, because the shorter ones are padded.
    """
    parts = [cast("Part", import_module(f"retrieval.embeddings.{name}")) for name in PARTS[model]]
    by_length = sorted(range(len(texts)), key=lambda index: len(texts[index]))
    for start in range(0, len(texts), RUN_TEXTS):
        indexes = by_length[start : start + RUN_TEXTS]
        run = [texts[index] for index in indexes]
        with _lock:  # two runs at once would take turns on the same cores
            vectors = np.hstack([part.embed(run) for part in parts]) / np.sqrt(len(parts))
        padded = np.pad(vectors, ((0, 0), (0, DIMENSIONS - vectors.shape[1])))
        yield dict(zip(indexes, padded.astype(np.float32), strict=True))


def count_tokens(text: str) -> int:
    """How many tokens of the text MiniLM reads: at most 256. Raises EmbeddingError."""
    return minilm.count_tokens(text)
