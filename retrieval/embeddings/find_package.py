"""Finds the packages that contain the bundled models."""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from retrieval.embeddings.errors import EmbeddingError


def path_in(package: str, file: str) -> Path:
    """A file of a top-level package, none of whose code is run. Raises EmbeddingError."""
    spec = find_spec(package)
    folder = spec and spec.submodule_search_locations
    path = Path(folder[0], file) if folder else None
    if path is None or not path.is_file():
        raise missing()
    return path


def load(package: str) -> Any:
    """The package, imported. Raises EmbeddingError."""
    if find_spec(package) is None:
        raise missing()
    return import_module(package)


def missing() -> EmbeddingError:
    return EmbeddingError("EMBEDDINGS=local needs the packages of requirements.lock: make install")
