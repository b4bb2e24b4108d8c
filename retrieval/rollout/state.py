"""Who is given memories: ``rag_rollout``. A row of the database says so, for all processes."""

import re
from dataclasses import dataclass
from datetime import datetime

from django.db.models.functions import Now

from retrieval.later_table import LaterTable, MissingTableError
from retrieval.rollout_models import Rollout
from retrieval.runtime import Expiring

OFF, DARK, ON = "off", "dark", "on"
LOOK_AGAIN_S = 5.0  # a process notices a change within 10 s: docs/promises.md
SHARE = re.compile(r"([0-9]{1,3})(?:\.([0-9]))?%")
# 2 to the 64th, divided by the golden ratio: multiples of it are spread evenly, so even a few users
# with neighbouring ids are divided as the share says (Knuth, The Art of Computer Programming, 6.4).
GOLDEN = 11400714819323198485
THOUSANDTHS = 1_000  # a share has one decimal


class UnknownState(ValueError):
    """Not one of off, dark, on, or a share from 1% to 100% with one decimal at most."""


@dataclass(frozen=True)
class State:
    """``name`` is off, dark, on, or a share such as 5%. ``fuse_*``: None for no such limit."""

    name: str = ON
    fuse_ms: int | None = None
    fuse_errors: int | None = None
    set_at: datetime | None = None
    blown_at: datetime | None = None
    blown_reason: str | None = None

    def gives_memories(self, user_id: int) -> bool:
        """Whether the user is given memories: the same users each time, more as a share grows."""
        if self.name in (OFF, DARK):
            return False
        return self.name == ON or place_of(user_id) < thousandths(self.name)

    @property
    def share(self) -> float:
        """Of the users, those who are given memories: from 0 to 1."""
        if self.name in (OFF, DARK):
            return 0.0
        return 1.0 if self.name == ON else thousandths(self.name) / THOUSANDTHS

    @property
    def may_blow(self) -> bool:
        """Whether there is a fuse, and users who are given memories."""
        has_fuse = self.fuse_ms is not None or self.fuse_errors is not None
        return has_fuse and self.name not in (OFF, DARK)


_table = LaterTable(Rollout._meta.db_table, check_again_s=LOOK_AGAIN_S)
_current: Expiring[State] = Expiring()


def place_of(user_id: int) -> int:
    """The user's place in the order in which users are let in: 0 to 999."""
    return ((user_id * GOLDEN) % 2**64 * THOUSANDTHS) >> 64


def thousandths(share: str) -> int:
    """``5%`` is 50. Raises UnknownState."""
    match = SHARE.fullmatch(share)
    number = int(match[1]) * 10 + int(match[2] or 0) if match else 0
    if not 10 <= number <= THOUSANDTHS:
        raise UnknownState(share)
    return number


def parse(text: str) -> str:
    """The state that the text names, in one form: ``5.0%`` is 5%. Raises UnknownState."""
    if text in (OFF, DARK, ON):
        return text
    whole, tenth = divmod(thousandths(text), 10)
    return f"{whole}.{tenth}%" if tenth else f"{whole}%"


def current() -> State:
    """The state, at most LOOK_AGAIN_S old. On a schema before chat 0016_rollout it is ``on``.

    At most two queries in LOOK_AGAIN_S.
    """
    return _current.get() or _current.set(read(), seconds=LOOK_AGAIN_S)


def read() -> State:
    """The state in the database. At most two queries."""
    try:
        with _table.required(to_write=False):
            row = Rollout.objects.first()
    except MissingTableError:
        return State()
    if row is None:
        return State()
    fuse = (row.fuse_ms, row.fuse_errors)
    return State(row.state, *fuse, row.set_at, row.blown_at, row.blown_reason)


def save(name: str, *, fuse_ms: int | None, fuse_errors: int | None) -> None:
    """Set the state and the fuse, for all processes. One statement. Locks: the row.

    Raises ProgrammingError on a schema before chat 0016_rollout.
    """
    values = {"state": name, "fuse_ms": fuse_ms, "fuse_errors": fuse_errors}
    unblown = {"set_at": Now(), "blown_at": None, "blown_reason": None}
    Rollout.objects.bulk_create(
        [Rollout(**values, **unblown)],
        update_conflicts=True,
        unique_fields=["id"],
        update_fields=[*values, *unblown],
    )
    _current.forget()


def blow(state: State, reason: str) -> bool:
    """Make the state ``dark``. False if another process has changed it. One statement."""
    if state.set_at is None:
        return False
    unchanged = Rollout.objects.filter(set_at=state.set_at, blown_at=None)
    blown = unchanged.update(state=DARK, blown_at=Now(), blown_reason=reason)
    _current.forget()
    return bool(blown)
