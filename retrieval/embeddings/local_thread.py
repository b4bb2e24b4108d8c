"""One thread for the bundled models, each of which uses all cores by itself."""

import atexit
import threading
from collections.abc import Sequence
from concurrent.futures import Future
from functools import cache

from retrieval.embeddings import bundled_models
from retrieval.embeddings.errors import EmbeddingError
from retrieval.steps import StepPool
from retrieval.vectors import Vector

RUN_S = 10.0  # how long a run takes at most, on a busy machine
_exiting = threading.Event()


def submit(texts: Sequence[str], model: str, ending: threading.Event) -> Future[list[Vector]]:
    """The texts' vectors by the bundled model. ``ending`` stops the work after its present run."""
    return _thread().submit(_embed, texts, model, ending)


def _embed(texts: Sequence[str], model: str, ending: threading.Event) -> list[Vector]:
    vectors: dict[int, Vector] = {}
    for run_vectors in bundled_models.embed_in_runs(texts, model):
        vectors |= run_vectors
        if ending.is_set() or _exiting.is_set():
            raise EmbeddingError("the process is ending")
    return [vectors[index] for index in range(len(texts))]


@cache
def _thread() -> StepPool:
    """A thread that is inside ONNX Runtime when Python exits would abort the process."""
    thread = StepPool(1)

    def end() -> None:
        _exiting.set()
        thread.join(RUN_S)

    atexit.register(end)
    return thread
