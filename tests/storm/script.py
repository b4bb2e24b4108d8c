"""What a user does: an endless script that depends on the seed and the user's number alone.

An action names no message: ``pick`` and ``place`` are numbers below 1 that choose among what the
user has at that time.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

# Actions and how often each is done, of about a hundred.
WEIGHTS = {
    "turn": 24,
    "streamed_turn": 14,
    "left_turn": 6,
    "followed_turn": 5,
    "stopped_turn": 6,
    "edit": 8,
    "delete": 8,
    "regenerate": 6,
    "search": 10,
    "new_conversation": 5,
    "delete_conversation": 2,
    "import_file": 2,
    "remove_import": 1,
    "switch_conversation": 1.5,
    "switch_memory": 1.5,
    "erase": 0.2,
}
ATTEMPTS = (1, 3, 40)  # 40: for longer than any fault lasts
MAX_PAUSE_S = 6.0
TOPICS = tuple(
    (  # noqa: SIM905 # twenty quoted words would be hard to read
        "bread harbour piano tomato glacier bicycle lantern orchard violin teapot balcony ferry "
        "saddle chestnut compass pillow quarry ribbon thistle walnut"
    ).split()
)


@dataclass(frozen=True)
class Action:
    """A step of a script. ``web``: which server is asked first; others by turns after a failure."""

    kind: str
    pick: float
    place: float
    web: int
    attempts: int
    words: str
    pause_s: float


def script(seed: int, user: int) -> Iterator[Action]:
    """The user's actions, for ever."""
    chance = random.Random(f"{seed}, user {user}")
    yield _action(chance, "new_conversation")
    while True:
        (kind,) = chance.choices(list(WEIGHTS), list(WEIGHTS.values()))
        yield _action(chance, kind)


def _action(chance: random.Random, kind: str) -> Action:
    return Action(
        kind=kind,
        pick=chance.random(),
        place=chance.random(),
        web=chance.randrange(2),
        attempts=chance.choice(ATTEMPTS),
        words=" ".join(chance.choices(TOPICS, k=3)),
        pause_s=chance.uniform(0, MAX_PAUSE_S),
    )
