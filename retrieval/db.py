"""Runs memory's statements. Raises NoMemory if its tables do not exist."""

import math
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import lru_cache, wraps
from typing import Any, ParamSpec, cast

import numpy as np
import psycopg
from django.db import InternalError, ProgrammingError, connection, transaction
from numpy.typing import NDArray
from pgvector.psycopg.bit import register_bit_info
from pgvector.psycopg.vector import register_vector_info
from psycopg import errors, sql
from psycopg.abc import Buffer, QueryNoTemplate
from psycopg.adapt import Loader
from psycopg.pq import Format
from psycopg.types import TypeInfo

from retrieval.replica import reading
from retrieval.runtime import Expiring

P = ParamSpec("P")
ARRAY_HEAD_BYTES = 20  # of one dimension; an empty array has only the first 12 of them
LOOK_AGAIN_S = 20.0  # a running server notices a migration within 60 s: docs/promises.md
# A table, column, function, type or operator of memory's does not exist.
UNDEFINED_ERRORS = (
    errors.UndefinedTable,
    errors.UndefinedColumn,
    errors.UndefinedFunction,
    errors.UndefinedObject,
)
FIND_VECTOR_TYPE = """
    SELECT pg_catalog.quote_ident(n.nspname), t.oid::int8, t.typarray::int8
    FROM pg_catalog.pg_extension e
    JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
    JOIN pg_catalog.pg_type t ON t.typnamespace = n.oid AND t.typname = 'vector'
    WHERE e.extname = 'vector' AND pg_catalog.to_regclass('message_memories') IS NOT NULL
"""
# Looks for recall_messages_2, the last of recall's functions that a migration creates; grant_roles
# grants them together. The functions name the extension's schema, so they cannot be used once the
# extension has moved to another.
FIND_FUNCTION = """
    SELECT EXISTS (
        SELECT FROM pg_catalog.pg_proc p
        JOIN pg_catalog.pg_class c ON c.relnamespace = p.pronamespace
        JOIN pg_catalog.pg_extension e ON e.extname = 'vector'
        JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
        WHERE p.proname = 'recall_messages_2'
            AND c.oid = pg_catalog.to_regclass('message_memories')
            AND pg_catalog.strpos(p.prosrc, pg_catalog.quote_ident(n.nspname) || '.<=>') > 0
            AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))
"""


class NoMemory(Exception):
    """The database has no tables of memory: not migrated yet, or migrated back."""


@dataclass(frozen=True)
class VectorType:
    """Where the extension lives (its schema, quoted) and the oids of vector and vector[]."""

    schema: str
    oid: int
    array_oid: int


_vector_type: Expiring[VectorType] = Expiring()
_is_missing: Expiring[bool] = Expiring()
_has_functions: Expiring[bool] = Expiring()
_lookup = threading.Lock()


def vector_type() -> VectorType:
    """No query once memory is there; before, at most one every 20 s. Raises NoMemory."""
    known = _vector_type.get()
    if known is None:
        with _lookup:  # threads that come at the same moment wait for one lookup
            known = _vector_type.get() or _find_vector_type()
    return known


def _find_vector_type() -> VectorType:
    if _is_missing.get():
        raise NoMemory
    rows = _execute(FIND_VECTOR_TYPE, {})
    if not rows:
        _is_missing.set(True, seconds=LOOK_AGAIN_S)
        raise NoMemory
    return _vector_type.set(VectorType(*rows[0]), seconds=math.inf)


def has_recall_functions() -> bool:
    """Whether recall's functions are there (chat 0010_recall_messages) and this role may call them.

    No query once they are; before, at most one every 20 s.
    """
    known = _has_functions.get()
    if known is None:
        ((known,),) = _execute(FIND_FUNCTION, {})
        _has_functions.set(known, seconds=math.inf if known else LOOK_AGAIN_S)
    return known


class _VectorSchema(sql.Composable):
    """The extension's schema in a composed statement, looked up when the statement runs."""

    def __init__(self) -> None:
        super().__init__("vector")

    def as_bytes(self, context: Any = None) -> bytes:
        return vector_type().schema.encode()


VECTOR_SCHEMA = _VectorSchema()


def composed_once(compose: Callable[P, sql.Composed]) -> Callable[P, sql.SQL]:
    """Decorator: caches a composed statement as text; to render recall's takes 0.2 ms."""

    @lru_cache(maxsize=256)
    def render(_schema: str, *args: P.args, **kwargs: P.kwargs) -> sql.SQL:
        return sql.SQL(compose(*args, **kwargs).as_string())

    @wraps(compose)
    def cached(*args: P.args, **kwargs: P.kwargs) -> sql.SQL:
        return render(vector_type().schema, *args, **kwargs)  # type: ignore[arg-type] # hashable

    return cached


@contextmanager
def require_memory() -> Iterator[None]:
    """Around statements on memory's tables, Django's too: NoMemory if one does not exist.

    Inside a transaction a savepoint keeps the failure from the statements around it.
    """
    vector_type()
    savepoint = transaction.atomic() if connection.in_atomic_block else nullcontext()
    try:
        with savepoint:
            yield
    except ProgrammingError as error:
        if reading.is_reading() or not isinstance(error.__cause__, UNDEFINED_ERRORS):
            raise  # what a replica lacks, it has not replayed yet
        _vector_type.forget()
        _has_functions.forget()
        # Without a function there may still be memory, as of an earlier migration.
        if not isinstance(error.__cause__, errors.UndefinedFunction):
            _is_missing.set(True, seconds=LOOK_AGAIN_S)
        raise NoMemory from error
    except InternalError:  # "cache lookup failed for type": the extension was dropped and created
        _vector_type.forget()
        raise


def execute(
    statement: QueryNoTemplate, params: Mapping[str, Any], *, binary: bool = False
) -> list[tuple[Any, ...]]:
    """The statement's rows, or one row with the number of rows changed. Raises NoMemory.

    Parameters are sent apart from the statement, numpy arrays in pgvector's binary form:
    ``%(name)b``. ``binary``: the rows are sent in binary form too.
    """
    with require_memory():
        return _execute(statement, params, binary=binary)


def _execute(
    statement: QueryNoTemplate, params: Mapping[str, Any], *, binary: bool = False
) -> list[tuple[Any, ...]]:
    database = reading.database()
    database.ensure_connection()
    session = cast("psycopg.Connection[Any]", database.connection)
    _register_vectors(session)
    with database.wrap_database_errors, psycopg.Cursor(session) as cursor:
        cursor.execute(statement, params, binary=binary)
        has_rows = cursor.rownumber is not None
        return cursor.fetchall() if has_rows else [(cursor.rowcount,)]


def array_of(values: NDArray[Any]) -> str:
    """An array of numbers as PostgreSQL reads it: {1, 2}. psycopg takes ten times as long."""
    return f"{{{str(values.tolist())[1:-1]}}}"


class _IntegerArrayLoader(Loader):
    """Arrays of integers without NULLs, in binary form, become numpy arrays of int64.

    After a head each element has its length in bytes before it.
    """

    format = Format.BINARY
    element: str  # numpy's name of its type

    def load(self, data: Buffer) -> NDArray[np.int64]:
        dtype = np.dtype([("length", ">i4"), ("value", self.element)])
        elements = np.frombuffer(bytes(data)[ARRAY_HEAD_BYTES:], dtype)
        return elements["value"].astype(np.int64)


class _Int4ArrayLoader(_IntegerArrayLoader):
    element = ">i4"


class _Int8ArrayLoader(_IntegerArrayLoader):
    element = ">i8"


def _register_vectors(session: psycopg.Connection[Any]) -> None:
    """Once per connection, without a query: how numpy arrays and lists of them are sent.

    And how bit strings are sent, and arrays of integers read in binary form.
    """
    known = _vector_type.get()
    if known and session.adapters.types.get(known.oid) is None:
        register_vector_info(session, TypeInfo("vector", known.oid, known.array_oid))
        # That registers numpy arrays by the name of their class, which replaces no earlier oid.
        for wire_format in Format:
            dumper = session.adapters.get_dumper_by_oid(known.oid, wire_format)
            session.adapters.register_dumper(np.ndarray, dumper)
        types = session.adapters.types
        register_bit_info(session, types["bit"])
        session.adapters.register_loader(types.get_oid("int4[]"), _Int4ArrayLoader)
        session.adapters.register_loader(types.get_oid("int8[]"), _Int8ArrayLoader)
