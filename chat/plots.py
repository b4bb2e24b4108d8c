"""Plots as numbers for SVG that a template draws: no script, no style, no picture file."""

from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTH, HEIGHT = 600, 80  # of a plot, in its own units


@dataclass(frozen=True)
class Bar:
    """A rectangle, in the plot's units; ``label`` is shown when one points at it."""

    x: str
    y: str
    width: str
    height: str
    label: str


@dataclass(frozen=True)
class Plot:
    """A line (``points``) or bars, between two values and from one date to another."""

    title: str
    top: str
    bottom: str
    first: str
    last: str
    points: str = ""
    bars: list[Bar] = field(default_factory=list)


def points(values: Sequence[float], *, lowest: float, highest: float | None = None) -> str:
    """The points of an SVG polyline in a box of WIDTH by HEIGHT; others stay at its edge."""
    top = highest if highest is not None else max(*values, lowest + 1e-9)
    step = WIDTH / (len(values) - 1)
    heights = (min(max((value - lowest) / (top - lowest), 0.0), 1.0) for value in values)
    return " ".join(
        f"{place * step:.1f},{HEIGHT * (1 - height):.1f}" for place, height in enumerate(heights)
    )


def bars(values: Sequence[float], labels: Sequence[str]) -> list[Bar]:
    """A bar for each value, from zero; the greatest fills the box. No bar for a zero."""
    top, step = max(*values, 1e-9), WIDTH / len(values)
    return [
        Bar(
            x=f"{place * step + 1:.1f}",
            y=f"{HEIGHT * (1 - value / top):.1f}",
            width=f"{step - 2:.1f}",
            height=f"{HEIGHT * value / top:.1f}",
            label=label,
        )
        for place, (value, label) in enumerate(zip(values, labels, strict=True))
        if value > 0
    ]
