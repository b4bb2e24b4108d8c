"""Which fault happens when: two lists that depend on the seed alone.

The faults of machines come one after the other; meanwhile those of the two services.
"""

import random
from collections.abc import Iterator
from dataclasses import dataclass

MACHINES: dict[str, tuple[float, float, float]] = {
    # name: how often, and for how many seconds at least and at most
    "kill_web": (4, 0, 6),
    "stop_web": (3, 2, 22),
    "kill_worker": (3, 0, 5),
    "stop_worker": (2, 2, 30),
    "restart_database": (2, 0, 8),
    "kill_database": (3, 0, 8),
    "end_sessions": (3, 0, 0),
    "fill_disk": (1, 1, 6),
    "move_clock": (2, 5, 20),
}
MODEL_MOODS = (  # noqa: SIM905 # as a list of quoted words it would be hard to read
    "slow refused_500 refused_429 hang hang_after cut drop html garbled empty error_event "
    "without_done away"
).split()
EMBEDDER_MOODS = (  # noqa: SIM905 # likewise
    "slow slow refused_500 refused_429 hang drop html garbled empty away too_few too_many "
    "reordered duplicate_index wrong_size nan infinite zero not_numbers"
).split()
MACHINE_PAUSE_S = (2.0, 10.0)
SERVICE_PAUSE_S = (2.0, 8.0)
MOOD_S = (1.0, 12.0)
JUMPS_S = (3600, -3600, 90, -90)


@dataclass(frozen=True)
class Fault:
    """``after_s``: of calm before it. ``number`` chooses the process; ``jump_s`` of a clock."""

    name: str
    after_s: float
    lasts_s: float
    number: int = 0
    jump_s: int = 0


def machine_faults(seed: int) -> Iterator[Fault]:
    chance = random.Random(f"{seed}, machines")
    for name in _all_then_any(chance, list(MACHINES), [often for often, _, _ in MACHINES.values()]):
        _, shortest_s, longest_s = MACHINES[name]
        yield Fault(
            name,
            after_s=chance.uniform(*MACHINE_PAUSE_S),
            lasts_s=chance.uniform(shortest_s, longest_s),
            number=chance.randrange(2),
            jump_s=chance.choice(JUMPS_S),
        )


def service_faults(seed: int) -> Iterator[Fault]:
    """Names such as "model hang" and "embedder nan"."""
    chance = random.Random(f"{seed}, services")
    names = [f"model {mood}" for mood in MODEL_MOODS]
    names += [f"embedder {mood}" for mood in EMBEDDER_MOODS]
    for name in _all_then_any(chance, names, [1.0] * len(names)):
        pause_s, lasts_s = chance.uniform(*SERVICE_PAUSE_S), chance.uniform(*MOOD_S)
        yield Fault(name, after_s=pause_s, lasts_s=lasts_s)


def _all_then_any(chance: random.Random, names: list[str], weights: list[float]) -> Iterator[str]:
    """Each name once, in any order; then for ever by their weights."""
    yield from chance.sample(names, len(names))
    while True:
        yield from chance.choices(names, weights)
