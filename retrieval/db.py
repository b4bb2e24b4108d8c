"""Memory's own statements: apart from the chat's, and never in its way where the schema has no memory (yet)."""

import struct
import threading
import time
from collections.abc import Mapping
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import psycopg
from django.db import ProgrammingError, connection, transaction
from numpy.typing import NDArray
from psycopg import errors
from psycopg.abc import Buffer
from psycopg.adapt import Dumper
from psycopg.pq import Format

LOOK_AGAIN_S = (
    20.0  # contract section 7: a running server turns recall on within 60 s after migrate
)
GONE = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
)
SCHEMA = """
    SELECT pg_catalog.quote_ident(n.nspname), t.oid::int8 FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
    WHERE e.extname = 'vector' AND pg_catalog.to_regclass('message_memories') IS NOT NULL
"""


class NoMemory(Exception):
    """The database's schema has no memory: not migrated yet, or taken away again."""


@dataclass
class _Seen:
    vector: str | None = None  # the extension's schema, where memory was there at the last look
    oid: int = 0  # of its type
    at: float | None = None


_seen = _Seen()
_looking = threading.Lock()


def vector_schema() -> str:
    """The extension's schema, quoted for SQL. At most one query, at times. Raises NoMemory."""
    if _seen.vector is None:
        with _looking:  # who comes at the same moment waits for what is found
            _look()
    if _seen.vector is None:
        raise NoMemory
    return _seen.vector


def _look() -> None:
    if _seen.vector is None and (_seen.at is None or time.monotonic() - _seen.at >= LOOK_AGAIN_S):
        found = _execute(SCHEMA, {})
        _seen.at = time.monotonic()
        for schema, oid in found:
            _seen.oid, _seen.vector = int(oid), str(schema)


def reset_schema() -> None:
    """Look again at the next statement."""
    _seen.vector = _seen.at = None


def execute(sql: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    """The statement's rows, with parameters sent apart from it, a vector in its binary form. Raises NoMemory.

    ``{vector}`` in ``sql`` stands for the extension's schema.
    """
    try:
        return _execute(sql.replace("{vector}", vector_schema()), params)
    except ProgrammingError as error:
        if not isinstance(error.__cause__, GONE):
            raise
        _seen.vector, _seen.at = None, time.monotonic()
        raise NoMemory from error


def _execute(sql: str, params: Mapping[str, Any]) -> list[tuple[Any, ...]]:
    connection.ensure_connection()
    # Inside a transaction a failure must not take along what else is in it; outside, none is begun.
    apart = transaction.atomic() if connection.in_atomic_block else nullcontext()
    with apart, connection.wrap_database_errors, psycopg.Cursor(_raw()) as cursor:
        cursor.adapters.register_dumper(np.ndarray, VectorDumper)
        cursor.adapters.register_dumper(Vectors, VectorsDumper)
        cursor.execute(sql, params)
        return cursor.fetchall() if cursor.description else [(cursor.rowcount,)]


def _raw() -> psycopg.Connection[Any]:
    return cast("psycopg.Connection[Any]", connection.connection)


class VectorDumper(Dumper):
    """A numpy array as pgvector's binary form: two 16-bit numbers (length, 0), then big-endian 32-bit floats.

    Without a type's number, which differs between databases: the statement casts it, ``%(v)b::vector``.
    """

    format = Format.BINARY
    oid = 0

    def dump(self, obj: NDArray[np.float32]) -> Buffer | None:
        """The bytes."""
        return binary(obj)


class Vectors(tuple[NDArray[np.float32], ...]):
    """Vectors as one parameter, ``%(v)b::vector[]``."""

    __slots__ = ()


class VectorsDumper(Dumper):
    """An array of one dimension in PostgreSQL's binary form (array_recv in its source).

    Here the elements' type stands in the bytes: its number in this database, known since ``vector_schema`` looked.
    """

    format = Format.BINARY
    oid = 0

    def dump(self, obj: Vectors) -> Buffer | None:
        """Dimensions, nulls, type; length and lower bound; then each vector after its size in bytes."""
        head = struct.pack("!iiIii", 1, 0, _seen.oid, len(obj), 1)
        return head + b"".join(struct.pack("!i", len(one)) + one for one in map(binary, obj))


def binary(vector: NDArray[np.float32]) -> bytes:
    """A vector as pgvector sends and receives it."""
    return np.array([vector.size, 0], ">u2").tobytes() + np.asarray(vector, ">f4").tobytes()
