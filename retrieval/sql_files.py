"""Reads SQL from the .sql files that lie next to the Python code that runs it."""

import re
from pathlib import Path

from psycopg import sql


def read_statement(path: Path) -> sql.SQL:
    """The file's one statement; its ``{names}`` are filled by ``sql.SQL.format``."""
    return sql.SQL(path.read_text())


def read_statements(path: Path) -> dict[str, sql.SQL]:
    """The file's statements by name: each follows a line ``-- name: the_name``."""
    _, *parts = re.split(r"^-- name: (\w+)$", path.read_text(), flags=re.MULTILINE)
    texts = (text.strip() for text in parts[1::2])
    return {name: sql.SQL(text) for name, text in zip(parts[::2], texts, strict=True)}
