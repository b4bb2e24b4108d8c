"""One difference between a table and what migration ``chat 0001_initial`` creates."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from enum import IntEnum

from django.db.backends.base.base import BaseDatabaseWrapper
from psycopg import sql

from retrieval import queries
from retrieval.schema import indexes, locks

MAX_IDS = 20  # rows named in a difference
COUNT = sql.SQL(
    "SELECT key::text, count(*) OVER () FROM ({rows}) AS r (key) ORDER BY r.key LIMIT {n}"
)


class Stage(IntEnum):
    """The order of the work: what comes later needs what came before."""

    TABLE = 1
    COLUMN = 2
    DEFAULT = 3
    NOT_NULL = 4
    IDENTITY = 5
    UNIQUE = 6
    CHECK = 7
    FOREIGN_KEY = 8
    INDEX = 9
    SEQUENCE = 10


@dataclass(frozen=True)
class Step:
    """Statements of one transaction with a short lock; or, with ``index``, the build of that index.

    ``table`` and ``parents``: whose users the statements wait for.
    """

    statement: sql.Composable
    table: str
    parents: tuple[str, ...] = ()
    index: str | None = None

    def run(self, connection: BaseDatabaseWrapper) -> None:
        """Can be killed, and run again."""
        if self.index is None:
            locks.run_with_short_lock(connection, self.table, self.statement, parents=self.parents)
        else:
            indexes.ensure(connection, self.index, self.statement)


@dataclass(frozen=True)
class Difference:
    """A ``problem`` of a table, and the ``steps`` that correct it.

    Without steps the operator must act: ``fix`` says how. ``broken_rows`` selects the key of each
    row that prevents the steps.
    """

    table: str
    problem: str
    stage: Stage
    steps: tuple[Step, ...] = ()
    fix: str = ""
    broken_rows: sql.Composable | None = None

    @property
    def is_fixable(self) -> bool:
        return bool(self.steps)


def fixable(
    table: str,
    problem: str,
    stage: Stage,
    statements: Iterable[sql.Composable],
    *,
    broken_rows: sql.Composable | None = None,
    parents: tuple[str, ...] = (),
) -> Difference:
    """A difference that statements with a short lock correct, each in its own transaction."""
    steps = tuple(Step(statement, table, parents) for statement in statements)
    return Difference(table, problem, stage, steps, broken_rows=broken_rows)


def with_broken_rows(connection: BaseDatabaseWrapper, difference: Difference) -> Difference:
    """The difference, without steps if rows prevent them. At most one query, over the table."""
    if difference.broken_rows is None:
        return difference
    count = COUNT.format(rows=difference.broken_rows, n=sql.Literal(MAX_IDS))
    rows = queries.rows(count, connection=connection)
    if not rows:
        return difference
    total, ids = rows[0][1], ", ".join(str(key) for key, _ in rows)
    more = ", …" if total > len(rows) else ""
    noun = "row does" if total == 1 else "rows do"
    return replace(
        difference,
        problem=f"{difference.problem}; {total:,} {noun} not fit: {ids}{more}",
        steps=(),
        fix=f"correct these rows: {difference.broken_rows.as_string()}",
    )
