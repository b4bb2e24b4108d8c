"""The actions of a script by their names."""

from collections.abc import Awaitable, Callable

from tests.storm import changes, turns
from tests.storm.person import Person
from tests.storm.script import WEIGHTS, Action

ACTIONS: dict[str, Callable[[Person, Action], Awaitable[object]]] = {
    kind: getattr(turns, kind, None) or getattr(changes, kind) for kind in WEIGHTS
}
