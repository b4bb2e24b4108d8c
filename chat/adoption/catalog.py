"""What PostgreSQL's catalogs say about tables: columns, constraints, indexes."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from django.db.backends.base.base import BaseDatabaseWrapper

from retrieval.queries import rows
from retrieval.sql_files import read_statements

STATEMENTS = read_statements(Path(__file__).with_name("catalog.sql"))


@dataclass(frozen=True)
class Column:
    """A column of a table.

    ``default``: as pg_get_expr prints it. ``identity``: "a" (GENERATED ALWAYS), "d" (BY DEFAULT) or
    "" (none).
    """

    name: str
    type: str
    is_required: bool
    default: str | None
    identity: str
    is_generated: bool

    @property
    def may_be_left_out(self) -> bool:
        """Whether an INSERT may give no value."""
        return not self.is_required or self.default is not None or self.identity != ""

    def without_extras(self) -> "Column":
        """The column without NOT NULL, default and identity."""
        return replace(self, is_required=False, default=None, identity="")


@dataclass(frozen=True)
class Constraint:
    """A CHECK ("c", with its expression), a FOREIGN KEY ("f", with its parent) or EXCLUDE ("x")."""

    name: str
    kind: str
    definition: str
    is_valid: bool
    expression: str | None
    columns: list[str]
    parent: str | None
    parent_columns: list[str]


@dataclass(frozen=True)
class Index:
    """An index, also one that belongs to a constraint.

    ``definition``: what follows USING in CREATE INDEX, such as ``btree (id, user_id)``.
    ``constraint``: "p" PRIMARY KEY, "u" UNIQUE, "x" EXCLUDE, None for a plain index.
    ``is_immediate``: unique values are checked at once, not at the commit.
    """

    name: str
    definition: str
    is_unique: bool
    is_immediate: bool
    is_valid: bool
    constraint: str | None
    columns: list[str]


@dataclass(frozen=True)
class Table:
    """A relation with its owner, and its columns, constraints and indexes by name.

    ``kind``: relkind of pg_class, "r" for an ordinary table. ``may_alter``: whether the current
    role has the owner's rights.
    """

    name: str
    kind: str
    owner: str
    may_alter: bool
    columns: dict[str, Column] = field(default_factory=dict)
    constraints: dict[str, Constraint] = field(default_factory=dict)
    indexes: dict[str, Index] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The first column of the primary key. The table must have one."""
        return next(index for index in self.indexes.values() if index.constraint == "p").columns[0]


def read_tables(connection: BaseDatabaseWrapper, names: Iterable[str]) -> dict[str, Table]:
    """Those of the tables that exist, by name, in the order of ``names``. Four queries."""
    params = {"names": list(names)}
    existing = {table[0]: table for table in _rows(connection, "tables", params)}
    tables = {name: Table(*existing[name]) for name in params["names"] if name in existing}
    for table, *column in _rows(connection, "columns", params):
        tables[table].columns[column[0]] = Column(*column)
    for table, *constraint in _rows(connection, "constraints", params):
        tables[table].constraints[constraint[0]] = Constraint(*constraint)
    for table, *index in _rows(connection, "indexes", params):
        tables[table].indexes[index[0]] = Index(*index)
    return tables


@dataclass(frozen=True)
class ColumnSequence:
    """The sequence behind a column's default or identity."""

    schema: str
    name: str
    is_owned: bool


def read_sequence(
    connection: BaseDatabaseWrapper, table: str, column: str
) -> ColumnSequence | None:
    """The sequence that gives the column its values. One query."""
    for sequence in _rows(connection, "sequence", {"table": table, "column": column}):
        return ColumnSequence(*sequence)
    return None


def _rows(
    connection: BaseDatabaseWrapper, name: str, params: dict[str, Any]
) -> list[tuple[Any, ...]]:
    return rows(STATEMENTS[name], params, connection=connection)
