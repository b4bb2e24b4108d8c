"""Shared by the tests of import and export: files, and another session."""

from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest
from django.db import connection

from tests.support import database_url


@pytest.fixture
def file(tmp_path: Path) -> Callable[[Iterable[bytes]], str]:
    """Makes a file of lines."""

    def make(lines: Iterable[bytes]) -> str:
        with (tmp_path / "messages.jsonl").open("wb") as made:
            made.writelines(lines)
        return made.name

    return make


@pytest.fixture
def other() -> Iterator[Any]:
    """Another session, that waits for no lock longer than a second."""
    with psycopg.connect(
        database_url(connection), autocommit=True, options="-c lock_timeout=1s"
    ) as session:
        yield session
