"""Finds messages for the admin's lists: the cost is bounded, whatever the filters.

1. An index gives the newest MAX_LOOKED_AT candidates: of a user, set aside, of a time, or of all.
2. Each candidate is looked up by its primary key; those that do not match are left out.
3. ``Selection.older`` says where the look stopped, and a next one goes on from there.

So a list with a rare match may be short, or empty, and have older pages.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Self

from psycopg import sql

from chat.message_lists import states
from chat.models import Message, Status
from chat.row_lists import is_storable
from retrieval.message_tables import MessageTable
from retrieval.models import EmbeddingModel
from retrieval.queries import rows
from retrieval.sql_files import read_statements

MAX_LOOKED_AT = 10_000  # 50 to 100 ms with every filter: benchmarks/admin.py
MAX_MESSAGE_ID = 2**62 - 1  # its packed ref is the greatest bigint
CANDIDATES = read_statements(Path(__file__).with_name("candidates.sql"))
# Of each part of the candidates: how many, the last in its order, and the matching ones in order.
# Locks: none.
FIND = sql.SQL("""
    WITH candidates AS MATERIALIZED ({candidates})
    SELECT l.part, count(*), (array_agg(l.id ORDER BY l.at, l.id))[1], min(l.at),
        array_agg(l.id ORDER BY l.at DESC, l.id DESC) FILTER (WHERE l.matches)
    FROM (SELECT l.*, {matches} AS matches FROM candidates l {joins}) l GROUP BY l.part
""")
MESSAGE = sql.SQL("""
    LEFT JOIN LATERAL (
        SELECT m.id, m.user_id, m.{conversation}, m.role, m.status, m.content, m.created_at,
            m.edited_at, m.reply_to, m.context
        FROM {table} m WHERE m.id = l.id LIMIT 1
    ) m ON true
""")
CONDITIONS = {
    "role": sql.SQL("m.role = %(role)s"),
    "status": sql.SQL("m.status = %(status)s"),
    "state": sql.SQL("({state}) = %(state)s"),
    "model": sql.SQL("p.model = %(model)s"),
    "since": sql.SQL("m.created_at >= %(since)s"),
    "until": sql.SQL("m.created_at < %(until)s"),
}


@dataclass(frozen=True)
class Position:
    """Where a list goes on: after the message with this id; ``at``: in a list ordered by time."""

    pk: int
    at: datetime | None = None

    @classmethod
    def parse(cls, text: str) -> Self:
        """As ``str`` writes it. Raises ValueError."""
        pk, _, written_at = text.partition("@")
        at = datetime.fromisoformat(written_at) if written_at else None
        if at and not is_storable(at):
            raise ValueError(text)
        return cls(max(min(int(pk), MAX_MESSAGE_ID), 0), at)

    def __str__(self) -> str:
        return f"{self.pk}@{self.at.isoformat()}" if self.at else str(self.pk)


@dataclass(frozen=True)
class Query:
    """What a list shows; None: all. ``users`` or ``pk``: these users' messages, and this one."""

    users: Sequence[int] | None = None
    pk: int | None = None
    role: str | None = None
    status: str | None = None
    state: str | None = None
    model: int | None = None
    since: datetime | None = None
    until: datetime | None = None
    before: Position | None = None


@dataclass(frozen=True)
class Selection:
    """Ids, in the order of the list; ``older`` is None if there are no more candidates."""

    ids: list[int] = field(default_factory=list)
    looked_at: int = 0
    older: Position | None = None


def find(model: type[Message], query: Query) -> Selection:
    """The matching ones of the next MAX_LOOKED_AT candidates. At most two statements."""
    table = model.memory_table
    if query.users is not None and not query.users and query.pk is None:
        return Selection()
    if not states.has_memory() and (query.model or query.state in (states.EMBEDDED, states.FAILED)):
        return Selection()
    names, models = _candidates(query)
    shares = max(len(query.users or ()), len(models) + ("without_vector" in names), 1)
    share = max(MAX_LOOKED_AT // shares, 1)
    candidates = sql.SQL(" UNION ALL ").join(
        sql.SQL("({})").format(
            CANDIDATES[name].format(status=sql.Literal(query.status), **table.names)
        )
        for name in names
    )
    statement = FIND.format(candidates=candidates, **_conditions(table, query, names))
    with states.memory_statement():
        parts = rows(statement, _parameters(table, query, models, share))
    return _merge(parts, share)


def _candidates(query: Query) -> tuple[list[str], list[int]]:
    """The statements that give candidates, and the models of ``of_models``: the fewest first."""
    if query.users is not None:
        return ["of_users"], []
    if query.state == states.FAILED:
        return ["set_aside"], []
    if query.status in (Status.FAILED, Status.INTERRUPTED):
        return ["with_status"], []
    if query.state == states.PENDING and query.model is None and states.has_memory():
        return ["without_vector", "of_models"], _models(current=False)
    if query.since or query.until:
        return ["of_times"], []
    if query.model is not None:
        return ["of_models"], [query.model]
    if query.state == states.EMBEDDED:
        return ["of_models"], _models(current=True)
    return ["latest"], []


def _models(*, current: bool) -> list[int]:
    return list(EmbeddingModel.objects.filter(current=current).values_list("pk", flat=True))


def _conditions(table: MessageTable, query: Query, names: list[str]) -> dict[str, sql.Composable]:
    """The fields {matches} and {joins} of FIND."""
    conditions = [name for name in CONDITIONS if getattr(query, name) is not None]
    if names == ["of_times"]:
        conditions = [name for name in conditions if name not in ("since", "until")]
    if names == ["of_models"] and query.state is None:
        conditions.remove("model")
    if not conditions:
        return {"matches": sql.SQL("true"), "joins": sql.SQL("")}
    needs_memory = {"state", "model"} & set(conditions)
    joins = [MESSAGE.format(**table.names)] + [states.state_joins(table)] * bool(needs_memory)
    # A row of memory may outlive its message for a moment.
    parts = [
        sql.SQL("m.id IS NOT NULL"),
        *(CONDITIONS[name].format(state=states.state(table)) for name in conditions),
    ]
    matches = sql.SQL("coalesce({}, false)").format(sql.SQL(" AND ").join(parts))
    return {"matches": matches, "joins": sql.SQL(" ").join(joins)}


def _parameters(table: MessageTable, query: Query, models: list[int], share: int) -> dict[str, Any]:
    before = query.before or Position(MAX_MESSAGE_ID)
    return {
        **{name: getattr(query, name) for name in ("pk", "role", "status", "state", "model")},
        "users": list(query.users or ()),
        "models": models,
        "since": query.since or "-infinity",
        "until": query.until,
        "before": before.pk,
        "before_ref": table.pack_ref(before.pk),
        "before_at": before.at or "infinity",
        "share": share,
    }


def _merge(parts: list[tuple[Any, ...]], share: int) -> Selection:
    """Candidates of several parts are complete down to where the first of them was cut."""
    cuts = [Position(pk, at) for _, count, pk, at, _ in parts if count >= share]
    older = max(cuts, key=lambda cut: cut.pk, default=None)
    looked_at = sum(count for _, count, *_ in parts)
    if len(parts) == 1:
        return Selection(parts[0][-1] or [], looked_at, older)
    ids = {pk for *_, matching in parts for pk in matching or ()}
    complete = (pk for pk in ids if older is None or pk >= older.pk)
    return Selection(sorted(complete, reverse=True), looked_at, older)
