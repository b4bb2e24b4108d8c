"""How checks ask the database: reading only, each with a time limit, behind nobody's lock for long."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from django.db import connection, transaction

STATEMENT_TIMEOUT = (
    "30s"  # a check that takes longer is told as a WARN; the live database comes first
)
LOCK_TIMEOUT = (
    "1s"  # reading waits only for ACCESS EXCLUSIVE, and whoever holds that is to be told of
)
LIMITS = f"SET LOCAL statement_timeout = '{STATEMENT_TIMEOUT}'; SET LOCAL lock_timeout = '{LOCK_TIMEOUT}'"


@contextmanager
def limits(*, reading: bool = True) -> Iterator[None]:
    """A transaction in which statements have time limits and, unless not ``reading``, nothing can be written."""
    with transaction.atomic():
        run(LIMITS)
        if reading:
            run("SET LOCAL transaction_read_only = on")
        yield


def rows(sql: str, params: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
    """The statement's rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql, params or None)
        return list(cursor.fetchall())


def row(sql: str, params: Sequence[Any] = ()) -> tuple[Any, ...]:
    """The statement's only row."""
    (found,) = rows(sql, params)
    return found


def value(sql: str, params: Sequence[Any] = ()) -> Any:
    """The only column of the statement's only row."""
    (found,) = row(sql, params)
    return found


def run(sql: str) -> None:
    """A statement without rows."""
    with connection.cursor() as cursor:
        cursor.execute(sql)


def setting(name: str) -> str | None:
    """A setting of this session; None where the server does not know it, or this role may not read it."""
    found: str | None = value("SELECT pg_catalog.current_setting(%s, true)", [name])
    return found


def reset_of(name: str) -> str:
    """SQL that takes back what was set for the role, the database or the server: wherever the value comes from."""
    source, role, database = row(
        "SELECT source, pg_catalog.quote_ident(current_user), pg_catalog.quote_ident(pg_catalog.current_database()) "
        "FROM pg_catalog.pg_settings WHERE name = %s",
        [name],
    )
    where = {
        "user": f"ALTER ROLE {role} RESET {name};",
        "database": f"ALTER DATABASE {database} RESET {name};",
        "database user": f"ALTER ROLE {role} IN DATABASE {database} RESET {name};",
    }
    return where.get(source, f"ALTER SYSTEM RESET {name};\nSELECT pg_reload_conf();")
