"""CHECK constraints and foreign keys that are missing or not validated."""

import re
from collections.abc import Iterator, Mapping

from psycopg import sql

from chat.adoption.catalog import Constraint, Table
from chat.adoption.compare_columns import VALIDATE, can_be_read, same_expression
from chat.adoption.differences import Difference, Stage, fixable

# Locks: CHECK takes ACCESS EXCLUSIVE, a foreign key SHARE ROW EXCLUSIVE on both tables, each for
# under a millisecond: NOT VALID reads no row. VALIDATE then reads while writes go on.
ADD = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} {definition} NOT VALID")
RENAME = sql.SQL("ALTER TABLE {table} RENAME CONSTRAINT {name} TO {new_name}")
BROKEN_CHECK = sql.SQL("SELECT {key} FROM {table} WHERE NOT ({expression})")
BROKEN_FOREIGN_KEY = sql.SQL(
    "SELECT {key} FROM {table} AS child WHERE ({columns}) IS NOT NULL AND NOT EXISTS "
    "(SELECT FROM {parent} AS parent WHERE ({parent_columns}) = ({columns}))"
)
WITHOUT_PARENT = sql.SQL("SELECT {key} FROM {table} AS child WHERE ({columns}) IS NOT NULL")
# When a key is checked, and what the deletion of a parent does, is free.
FREE = re.compile(
    r" (ON (UPDATE|DELETE) (CASCADE|RESTRICT|SET NULL|SET DEFAULT)"
    r"|DEFERRABLE|INITIALLY DEFERRED|NOT VALID)"
)


def compare_constraints(
    wanted: Mapping[str, Table], existing: Mapping[str, Table], table: Table
) -> Iterator[Difference]:
    """The differences of all CHECK constraints and foreign keys, whatever their names are."""
    for constraint in wanted[table.name].constraints.values():
        same = [other for other in table.constraints.values() if is_same(constraint, other)]
        if not any(other.is_valid for other in same):
            broken = _broken_rows(wanted, existing, table, constraint)
            yield _difference(table, constraint, same, broken)


def is_same(left: Constraint, right: Constraint) -> bool:
    """Whether both demand the same of a row."""
    if left.kind != right.kind:
        return False
    if left.kind == "c":
        return same_expression(left.expression, right.expression)
    return FREE.sub("", left.definition) == FREE.sub("", right.definition)


def _difference(
    table: Table, constraint: Constraint, same: list[Constraint], broken: sql.Composed | None
) -> Difference:
    stage = Stage.CHECK if constraint.kind == "c" else Stage.FOREIGN_KEY
    name = same[0].name if same else constraint.name
    names = {"table": sql.Identifier(table.name), "name": sql.Identifier(name)}
    validate = VALIDATE.format(**names)
    if same:
        problem = f"constraint {name} is not validated"
        return fixable(table.name, problem, stage, [validate], broken_rows=broken)
    problem = f"{_in_words(constraint)} is missing"
    if name in table.constraints:
        rename = RENAME.format(**names, new_name=sql.Identifier(f"{name}_old")).as_string()
        return Difference(table.name, f"{problem}, another has its name", stage, fix=rename)
    add = ADD.format(**names, definition=sql.SQL(constraint.definition))
    parents = () if constraint.parent is None else (constraint.parent,)
    return fixable(table.name, problem, stage, [add, validate], broken_rows=broken, parents=parents)


def _in_words(constraint: Constraint) -> str:
    """A foreign key as it is declared; a CHECK by its name, for its casts are hard to read."""
    if constraint.kind == "c":
        return f"CHECK {constraint.name}"
    return FREE.sub("", constraint.definition)


def _broken_rows(
    wanted: Mapping[str, Table],
    existing: Mapping[str, Table],
    table: Table,
    constraint: Constraint,
) -> sql.Composed | None:
    """The statement that selects the rows; None while it cannot be run."""
    ours = wanted[table.name]
    if not can_be_read(ours, table, (*constraint.columns, ours.key)):
        return None
    names = {"table": sql.Identifier(table.name), "key": sql.Identifier(ours.key)}
    if constraint.parent is None:
        return BROKEN_CHECK.format(**names, expression=sql.SQL(constraint.expression or ""))
    columns = _qualified("child", constraint.columns)
    if constraint.parent in wanted and constraint.parent not in existing:
        return WITHOUT_PARENT.format(**names, columns=columns)
    parent = existing.get(constraint.parent)
    if parent and not can_be_read(wanted[parent.name], parent, constraint.parent_columns):
        return None
    return BROKEN_FOREIGN_KEY.format(
        **names,
        columns=columns,
        parent=sql.Identifier(constraint.parent),
        parent_columns=_qualified("parent", constraint.parent_columns),
    )


def _qualified(alias: str, columns: list[str]) -> sql.Composed:
    return sql.SQL(", ").join(sql.Identifier(alias, column) for column in columns)
