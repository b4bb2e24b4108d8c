"""Primary keys, unique constraints and indexes that are missing or INVALID."""

from collections.abc import Iterator

from psycopg import sql

from chat.adoption.catalog import Index, Table
from chat.adoption.compare_columns import can_be_read
from chat.adoption.differences import Difference, Stage, Step

# Lock: SHARE UPDATE EXCLUSIVE during the build, so reads and writes go on.
BUILD = sql.SQL("CREATE {kind} CONCURRENTLY {name} ON {table} USING {definition}")
# Lock: ACCESS EXCLUSIVE for under a millisecond, the index exists.
USE_INDEX = sql.SQL("ALTER TABLE {table} ADD CONSTRAINT {name} {kind} USING INDEX {name}")
RENAME = sql.SQL("ALTER INDEX {name} RENAME TO {new_name}")
DUPLICATES = sql.SQL(
    "SELECT {key} FROM (SELECT {key}, count(*) OVER (PARTITION BY {columns}) AS copies "
    "FROM {table} WHERE ({columns}) IS NOT NULL) AS counted WHERE copies > 1"
)
KEYWORDS = {"p": "PRIMARY KEY", "u": "UNIQUE", None: "index"}


def compare_indexes(wanted: Table, table: Table) -> Iterator[Difference]:
    """The differences of all keys and indexes, whatever their names are."""
    for index in wanted.indexes.values():
        if not any(_serves(index, existing) for existing in table.indexes.values()):
            yield _missing(wanted, table, index)


def _serves(wanted: Index, existing: Index) -> bool:
    if not existing.is_valid:
        return False
    if wanted.constraint is None:
        return existing.definition == wanted.definition or _begins_with(wanted, existing)
    if existing.definition != wanted.definition:
        return False
    # A foreign key can refer only to a key that is checked at once (not DEFERRABLE).
    is_key = existing.constraint in ("p", "u") and existing.is_immediate
    return is_key and (wanted.constraint == "u" or existing.constraint == "p")


def _begins_with(wanted: Index, existing: Index) -> bool:
    """Whether it is the index that chat 0012_message_lists makes in place of (user_id)."""
    longer = wanted.definition.removesuffix(")") + ", id)"
    return existing.definition == longer and not existing.is_unique


def _missing(wanted: Table, table: Table, index: Index) -> Difference:
    stage = Stage.INDEX if index.constraint is None else Stage.UNIQUE
    problem = f"{KEYWORDS[index.constraint]} ({', '.join(index.columns)}) is missing"
    usable = _usable(table, index)
    if index.constraint == "p" and (other := _primary_key(table)):
        columns = ", ".join(other.columns)
        return Difference(
            table.name,
            f"PRIMARY KEY is ({columns}) instead of ({index.columns[0]})",
            stage,
            fix="replace it at a quiet hour; foreign keys that refer to it must be dropped first",
        )
    if usable is None and _name_is_taken(table, index):
        new_name = sql.Identifier(f"{index.name}_old")
        rename = RENAME.format(name=sql.Identifier(index.name), new_name=new_name).as_string()
        return Difference(table.name, f"{problem}, another has its name", stage, fix=rename)
    duplicates = None if usable or index.constraint is None else _duplicates(wanted, table, index)
    steps = tuple(_steps(table, index, usable))
    return Difference(table.name, problem, stage, steps, broken_rows=duplicates)


def _steps(table: Table, index: Index, usable: Index | None) -> Iterator[Step]:
    name = (usable or index).name
    names = {"table": sql.Identifier(table.name), "name": sql.Identifier(name)}
    if usable is None:
        kind = sql.SQL("UNIQUE INDEX" if index.is_unique else "INDEX")
        build = BUILD.format(**names, kind=kind, definition=sql.SQL(index.definition))
        yield Step(build, table.name, index=name)
    if index.constraint is not None:
        yield Step(USE_INDEX.format(**names, kind=sql.SQL(KEYWORDS[index.constraint])), table.name)


def _usable(table: Table, wanted: Index) -> Index | None:
    """A unique index that can become the constraint: a run that was killed may have left it."""
    if wanted.constraint is None:
        return None
    usable = (
        index
        for index in table.indexes.values()
        if index.is_valid and index.is_unique and index.constraint is None
        if index.definition == wanted.definition
    )
    return next(usable, None)


def _name_is_taken(table: Table, wanted: Index) -> bool:
    """Whether another index has the name. An unfinished build of this one is none."""
    other = table.indexes.get(wanted.name)
    return other is not None and (other.is_valid or other.definition != wanted.definition)


def _primary_key(table: Table) -> Index | None:
    return next((index for index in table.indexes.values() if index.constraint == "p"), None)


def _duplicates(wanted: Table, table: Table, index: Index) -> sql.Composed | None:
    if not can_be_read(wanted, table, (*index.columns, wanted.key)):
        return None
    return DUPLICATES.format(
        table=sql.Identifier(table.name),
        key=sql.Identifier(wanted.key),
        columns=sql.SQL(", ").join(map(sql.Identifier, index.columns)),
    )
