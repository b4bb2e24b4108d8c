"""All differences between the existing tables and what migration ``chat 0001_initial`` creates."""

from collections.abc import Iterator, Mapping

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from chat.adoption.catalog import Table
from chat.adoption.compare_columns import compare_columns, declaration
from chat.adoption.compare_constraints import compare_constraints, is_same
from chat.adoption.compare_indexes import KEYWORDS, compare_indexes
from chat.adoption.compare_sequences import compare_sequences
from chat.adoption.differences import Difference, Stage, fixable
from retrieval.queries import value

CREATE = sql.SQL("CREATE TABLE IF NOT EXISTS {table} ({parts})")
CREATE_INDEX = sql.SQL("CREATE INDEX {name} ON {table} USING {definition}")
NAMED = sql.SQL("CONSTRAINT {name} {definition}")
OWN = sql.SQL("ALTER TABLE {table} OWNER TO {role}")


def compare(
    connection: BaseDatabaseWrapper, wanted: Mapping[str, Table], existing: Mapping[str, Table]
) -> Iterator[Difference]:
    """The differences, by table. Three queries for each table that has a sequence.

    If some tables belong to another role, yields only that: their rows may not be read.
    """
    if not all(table.may_alter for table in existing.values()):
        yield from _of_another_role(connection, existing)
        return
    for name, ours in wanted.items():
        table = existing.get(name)
        if table is None:
            yield fixable(name, "the table is missing", Stage.TABLE, [_create(ours)])
        elif table.kind != "r":
            problem = "it is not an ordinary table (a view, or partitioned)"
            yield Difference(name, problem, Stage.TABLE, fix="rename it, and copy its rows")
        else:
            yield from compare_columns(ours, table)
            yield from compare_indexes(ours, table)
            yield from compare_constraints(wanted, existing, table)
            yield from compare_sequences(connection, ours, table)


def restrictions(wanted: Mapping[str, Table], existing: Mapping[str, Table]) -> Iterator[str]:
    """What Verse does not know and could meet: constraints on its columns, INVALID indexes."""
    for name, table in existing.items():
        ours = wanted[name]
        unique = {index.definition for index in ours.indexes.values() if index.is_unique}
        for index in table.indexes.values():
            if not index.is_valid and index.name not in ours.indexes:
                yield f"{name}: index {index.name} is INVALID: drop it, unless it is being built"
            elif index.is_unique and index.definition not in unique:
                yield f"{name}: {index.name} is unique, and Verse does not know it"
        for constraint in table.constraints.values():
            known = any(is_same(constraint, other) for other in ours.constraints.values())
            if not known and ours.columns.keys() & set(constraint.columns):
                yield f"{name}: Verse does not know {constraint.name} {constraint.definition}"


def _create(table: Table) -> sql.Composed:
    """The table with its keys, checks and indexes; foreign keys follow. Locks: nothing else."""
    name = sql.Identifier(table.name)
    parts = [declaration(column) for column in table.columns.values()]
    for index in table.indexes.values():
        if index.constraint is not None:
            columns = sql.SQL(", ").join(map(sql.Identifier, index.columns))
            kind = sql.SQL(KEYWORDS[index.constraint])
            parts.append(_named(index.name, sql.SQL("{} ({})").format(kind, columns)))
    parts += [
        _named(constraint.name, sql.SQL(constraint.definition))
        for constraint in table.constraints.values()
        if constraint.kind == "c"
    ]
    plain = [
        CREATE_INDEX.format(
            name=sql.Identifier(index.name), table=name, definition=sql.SQL(index.definition)
        )
        for index in table.indexes.values()
        if index.constraint is None
    ]
    create = CREATE.format(table=name, parts=sql.SQL(", ").join(parts))
    return sql.SQL("; ").join([create, *plain])


def _named(name: str, definition: sql.Composable) -> sql.Composed:
    return NAMED.format(name=sql.Identifier(name), definition=definition)


def _of_another_role(
    connection: BaseDatabaseWrapper, existing: Mapping[str, Table]
) -> Iterator[Difference]:
    role = value("SELECT current_user", connection=connection)
    for table in existing.values():
        if not table.may_alter:
            names = {"table": sql.Identifier(table.name), "role": sql.Identifier(role)}
            yield Difference(
                table.name,
                f"it belongs to {table.owner}, and {role} is not a member of it",
                Stage.TABLE,
                fix=f"run this as {table.owner}; or, as an administrator: "
                f"{OWN.format(**names).as_string()}",
            )
